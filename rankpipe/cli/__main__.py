"""``python -m rankpipe.cli``: the command, for launchers of modules, as ``accelerate launch -m rankpipe.cli train``."""

from rankpipe.cli import main

if __name__ == "__main__":
    main()
