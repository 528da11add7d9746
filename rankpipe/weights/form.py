"""What runs a folder's model: ONNX Runtime or torch."""

from __future__ import annotations

from pathlib import Path

from rankpipe.catalog import installed
from rankpipe.weights.graphfiles import graph
from rankpipe.weights.hub import whole


def by_onnx(folder: Path) -> bool:
    """Whether ONNX Runtime runs it: a graph beside weights for torch is used where sentence-transformers is absent."""
    if (folder / "model.onnx").exists():
        return True
    return graph(folder) is not None and (not whole(folder) or not installed("sentence_transformers"))
