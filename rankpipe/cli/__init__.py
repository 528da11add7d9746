"""The command line. The only room that prints; each verb group is one small file."""

from __future__ import annotations

from importlib import import_module

import typer

app = typer.Typer(
    name="rankpipe",
    help="Retrieve, rerank with language models, and measure. Start with: rankpipe demo",
    no_args_is_help=True,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 bug, 2 wrong command line, 3 recipe, 4 data, 5 something missing, 6 artefact, "
    "7 model, 8 disk, 9 cluster, 10 regression found by compare or bounds broken in run, 11 busy, 130 interrupted.",
)


@app.callback()
def root(version: bool = typer.Option(False, "--version", is_eager=True, help="Print the version.")) -> None:
    """Typer needs a root to hang global options on."""
    if version:
        from rankpipe import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point of the ``rankpipe`` command."""
    for room in (
        "demo", "index", "search", "changes", "rerank", "view", "probe", "fit", "train", "models", "evaluate",
        "recipes", "house",
    ):  # fmt: skip
        import_module(f"rankpipe.cli.{room}")  # each registers its verbs
    app()
