"""ONNX graphs of a folder, by the names that repositories give them, and which of them are for this processor.

Optimum names the whole one ``model.onnx``; transformers.js and sentence-transformers put quantised ones beside it.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path

WHOLE = ("model.onnx", "onnx/model.onnx")  # the second is where repositories of the hub keep it
QUANTISED = {  # to eight bits, the best first: what the processor must have for it, if not every one will do
    "model_qint8_avx512_vnni.onnx": "avx512_vnni",
    "model_qint8_avx512.onnx": "avx512f",
    "model_quint8_avx2.onnx": "avx2",
    "model_qint8_arm64.onnx": "arm64",
    "model_quantized.onnx": None,
    "model_int8.onnx": None,
    "model_uint8.onnx": None,
}


def graphs(folder: Path) -> dict[str, Path]:
    """The graphs of a folder's model by their names in it, those first that :func:`picked` would take."""
    names = {str(file.relative_to(folder).as_posix()) for file in (*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx"))}
    return {name: folder / name for name in _sorted(names, features())}


def graph(folder: Path) -> Path | None:
    """The graph that a folder's model is run by, if it is by one: the whole one, or else a quantised one."""
    return next(iter(graphs(folder).values()), None)


def quantised(folder: Path) -> str | None:
    """The quantised graph of a folder that is for this processor."""
    return next((name for name in graphs(folder) if name not in WHOLE and _fits(name, features())), None)


def picked(names: Iterable[str]) -> str | None:
    """Of the names of some files the graph that :func:`graph` would take."""
    return next(iter(_sorted(names, features())), None)


@cache
def features() -> frozenset[str]:
    """What the processor has, as Linux says it; "arm64" if it is one of Arm's."""
    told = Path("/proc/cpuinfo")
    flags = re.search(r"^flags\s*:(.*)$", told.read_text("utf-8"), re.M) if told.exists() else None
    arm = {"arm64"} if platform.machine().lower() in ("arm64", "aarch64") else set[str]()
    return frozenset({*(flags[1].split() if flags else ()), *arm})


def _fits(name: str, has: Collection[str]) -> bool:
    return QUANTISED[Path(name).name] in (None, *has)


def _sorted(names: Iterable[str], has: Collection[str]) -> list[str]:
    """Graphs that are known by their names; one for another processor last, which runs here, but not as well."""
    places = [f"{folder}{name}" for name in QUANTISED for folder in ("", "onnx/")]
    order = [*WHOLE, *sorted(places, key=lambda name: not _fits(name, has))]
    return sorted({*names} & {*order}, key=order.index)
