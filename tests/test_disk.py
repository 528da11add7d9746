"""Temporary folders end with their process, however that ends; files may be removed while they are looked at."""

import os
import signal
import subprocess
import sys
from pathlib import Path, PosixPath
from typing import Any

from rankpipe.disk import damage, scratch

HOLDER = """
import sys
from rankpipe.disk import scratch
with scratch(sys.argv[1]) as folder:
    (folder / "file").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_what_the_killed_leave_is_removed() -> None:
    prefix = f"rankpipe-test-{os.getpid()}-"
    command = [sys.executable, "-c", HOLDER, prefix]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        theirs = Path(child.stdout.readline().strip())
        with scratch(prefix) as ours:
            assert (theirs / "file").exists()  # while it lives
            child.send_signal(signal.SIGKILL)
            child.wait()
            assert theirs.exists()
            with scratch(prefix) as another:
                assert not theirs.exists()
                assert ours.is_dir()
                assert another.is_dir()
            assert not another.exists()
    assert not ours.exists()


class Going(PosixPath):
    """A file that another process removes just when it was looked at."""

    def stat(self, **how: Any) -> os.stat_result:
        told = super().stat(**how)
        self.unlink()
        return told


def test_a_file_that_is_removed_meanwhile_is_missing(tmp_path: Path) -> None:
    going = Going(tmp_path / "file")
    going.write_bytes(b"abc")
    assert damage(going, 3, "", look=True) == f"{going} is missing"
