"""What runs a folder's model: ONNX Runtime or torch."""

from __future__ import annotations

from pathlib import Path

from rankpipe.catalog import installed
from rankpipe.weights.hub import whole

GRAPHS = ("model.onnx", "onnx/model.onnx")  # the second is where repositories of the hub keep it


def graph(folder: Path) -> Path | None:
    """The ONNX graph of a folder's model; its tokenizer and configuration are in the folder itself."""
    return next((folder / place for place in GRAPHS if (folder / place).exists()), None)


def by_onnx(folder: Path) -> bool:
    """Whether ONNX Runtime runs it: a graph beside weights for torch is used where sentence-transformers is absent."""
    found = graph(folder)
    return found is not None and (found.parent == folder or not whole(folder) or not installed("sentence_transformers"))
