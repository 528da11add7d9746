"""What an engine is started in is gone again afterwards; without the engine's package the cure is told."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from importlib.util import find_spec

import pytest

from rankpipe.aside import muted, settings
from rankpipe.errors import MissingExtra
from rankpipe.lm.fake import Noisy
from rankpipe.lm.ray import Ray
from rankpipe.lm.vllm import VLLM


def test_settings_hold_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKPIPE_THEIRS", "theirs")
    monkeypatch.delenv("RANKPIPE_OURS", raising=False)
    with settings({"RANKPIPE_THEIRS": "ours", "RANKPIPE_OURS": "ours"}):
        assert (os.environ["RANKPIPE_THEIRS"], os.environ["RANKPIPE_OURS"]) == ("theirs", "ours")
        warnings.warn("not shown", stacklevel=1)
    assert os.environ["RANKPIPE_THEIRS"] == "theirs"
    assert "RANKPIPE_OURS" not in os.environ
    with pytest.warns(UserWarning, match="shown again"):
        warnings.warn("shown again", stacklevel=1)


def test_nothing_is_heard_from_inside(capfd: pytest.CaptureFixture[str]) -> None:
    print("before")
    with muted() as said:
        os.write(1, b"from this process\n")
        subprocess.run([sys.executable, "-c", "import os; os.write(2, b'x\\nOSError: no room\\ny')"], check=True)
        assert said() == " (OSError: no room)"
    print("after", file=sys.stderr)
    assert capfd.readouterr() == ("before\n", "after\n")


def test_it_is_heard_again_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="inside"), muted():
        raise ValueError("inside")
    print("after")
    assert capfd.readouterr() == ("after\n", "")


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm() -> None:
    with pytest.raises(MissingExtra, match=r"vllm needs 'vllm'.*pip install 'rankpipe\[vllm\]'"):
        VLLM()


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray() -> None:
    with pytest.raises(MissingExtra, match=r"ray needs 'ray'.*pip install 'rankpipe\[ray\]'"):
        Ray(Noisy())
