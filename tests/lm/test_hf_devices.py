"""Where the transformers model computes, and in which number format."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rankpipe.device import native_dtype
from rankpipe.errors import MissingExtra, RecipeError
from rankpipe.lm.hf import HF

pytest.importorskip("torch")
pytest.importorskip("transformers")


def test_a_device_map(tiny_lm: Path) -> None:
    pytest.importorskip("accelerate")
    chats = [[{"role": "user", "content": text}] for text in ("a", "flea", "")]
    model = dict.fromkeys(("layers.0", "layers.1", "embed_tokens", "norm", "rotary_emb"), "cpu")
    parts = {f"model.{part}": place for part, place in model.items()} | {"lm_head": "cpu"}
    said = HF(str(tiny_lm), dtype="float32", device="cpu").complete(chats, max_tokens=8)
    for device_map in ("cpu", parts):
        lm = HF(str(tiny_lm), dtype="float32", device_map=device_map)
        assert lm.complete(chats, max_tokens=8) == said
    assert HF(str(tiny_lm), device_map="meta")._model.device.type == "meta", "where the map says"


def test_a_map_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="device='cpu', device_map='auto': give one of them"):
        HF(device="cpu", device_map="auto")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtra, match="hf needs 'accelerate'"):
        HF(device_map="auto")


def test_native_dtype() -> None:
    assert native_dtype("cuda") == "bfloat16"
    assert native_dtype("cpu") in ("float32", "bfloat16")
