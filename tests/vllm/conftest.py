"""Tests of the environment that ``make vllm-env`` makes. Where there is no vLLM nothing here is collected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rankpipe.lm.hf import HF
from tests.lm.tiny import drawn
from tests.vllm.server import running

collect_ignore_glob = [] if find_spec("vllm") and find_spec("ray") else ["*"]
CONTEXT = 4096


@pytest.fixture(scope="session")
def smollm2(embedded: Callable[[str], Path]) -> Path:
    """The folder of SmolLM2."""
    return embedded("smollm2")


@pytest.fixture(scope="session")
def hf(smollm2: Path) -> HF:
    """SmolLM2 through transformers, in single precision."""
    return HF("smollm2", dtype="float32", context=CONTEXT)


@pytest.fixture(scope="session")
def vllm(smollm2: Path) -> Any:
    """SmolLM2 through vLLM, in single precision."""
    from rankpipe.lm.vllm import VLLM

    return VLLM("smollm2", dtype="float32", context=CONTEXT)


@pytest.fixture(scope="session")
def loras(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """LoRAs of SmolLM2 with random weights, of other layers and ranks."""
    from rankpipe.train.adapters.lora import LoRA, RsLoRA

    folder = tmp_path_factory.mktemp("loras")
    return {
        "one": drawn(LoRA(rank=2, targets=["q_proj", "v_proj"]), smollm2, folder / "one", 1),
        "two": drawn(RsLoRA(rank=3, alpha=4, targets=["q_proj", "down_proj"]), smollm2, folder / "two", 2),
    }


@pytest.fixture(scope="session")
def server(smollm2: Path, loras: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of vLLM's own server with SmolLM2 and its LoRAs, in single precision."""
    with running(smollm2, "smollm2", CONTEXT, tmp_path_factory.mktemp("server") / "log", loras) as url:
        yield url
