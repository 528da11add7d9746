"""Temporary folders end with their process, however that ends; files may be removed while they are looked at."""

import os
import signal
import subprocess
import sys
from pathlib import Path, PosixPath
from typing import Any

from rankpipe.disk import damage, scratch, write

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


def test_what_is_no_file_is_written_to_and_links_stay(tmp_path: Path) -> None:
    pipe, link, target = tmp_path / "pipe", tmp_path / "link", tmp_path / "target"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with write(pipe) as f:
            f.write("said")
        assert (os.read(reader, 9), pipe.is_fifo()) == (b"said", True)
    finally:
        os.close(reader)
    link.symlink_to(target)
    for text in ("new", "newer"):
        with write(link) as f:
            f.write(text)
        assert (link.is_symlink(), target.read_text()) == (True, text)
    with write(Path("/dev/null"), "wb") as f:
        f.write(b"gone")
    assert Path("/dev/null").is_char_device()
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "link", "target"}
