"""An index that is made in little memory holds no more, by the operating system's own count, with all libraries.

That count has the pages of memory-mapped files, too, which tracemalloc does not see.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from rankpipe.colbert import Read
from rankpipe.data import Doc
from rankpipe.splade import Weighed
from tests.retrieve.fakes import Hashed
from tests.retrieve.test_memory import Made

pytestmark = pytest.mark.slow  # hundreds of megabytes are written
ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from pathlib import Path
from rankpipe.datasets import Dataset
from rankpipe.retrieve.bm25 import BM25
from rankpipe.retrieve.dense import Dense
from rankpipe.retrieve.late import ColBERT
from rankpipe.retrieve.sparse import SparseIndex
from rankpipe.retrieve import residuals
from tests.retrieve import test_resident
residuals.CENTROIDS = 0.25  # learning many takes minutes
kind, how, corpus = test_resident.KINDS[sys.argv[1]]
made = getattr(test_resident, corpus)
index = globals()[kind].build(Dataset("made", made), Path(sys.argv[2]), memory="256MB", **how)
built = len(index.segments)
index.update(test_resident.Made(100).docs())
index.compact()
print(built, 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]))
"""


class Wide(Hashed):
    """Draws vectors that are as long as those of real encoders."""

    dimension = 384

    def encode_docs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.cut = [False] * len(texts)
        return np.random.default_rng(len(texts)).standard_normal((len(texts), 384)).astype(np.float32)


class Heavy:
    """Draws twelve hundred words for each text."""

    name, identity = "heavy", "heavy"
    vocabulary: ClassVar[list[str]] = [f"word{i}" for i in range(20_000)]

    def __init__(self, max_length: int | None = None) -> None:
        self.max_length = max_length

    def docs(self, texts: Sequence[str]) -> list[Weighed]:
        words = [np.random.default_rng(i).permutation(len(self.vocabulary))[:1200] for i in range(len(texts))]
        return [Weighed(np.sort(some).astype(np.int32), np.ones(1200, np.float32), False) for some in words]


class Fine:
    """Draws two hundred token vectors for each text."""

    name, identity = "fine", "fine"

    def __init__(self, max_length: int | None = None) -> None:
        self.max_length = max_length

    def docs(self, texts: Sequence[str]) -> list[Read]:
        drawn = np.random.default_rng(len(texts)).standard_normal((len(texts), 200, 96)).astype(np.float32)
        return [Read(some / np.linalg.norm(some, axis=1, keepdims=True), 200, False) for some in drawn]


class Wordy(Made):
    """Of long texts, whose words are drawn."""

    def docs(self) -> Iterator[Doc]:
        chance = np.random.default_rng(0)
        words = np.array([f"word{i}" for i in range(20_000)])
        for i in range(self.count):
            yield Doc(f"{i}", " ".join(words[chance.integers(0, len(words), 1500)]))


FEW, MADE, MANY, WORDY = Made(18_000), Made(40_000), Made(90_000), Wordy(16_000)
KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "bm25": ("BM25", {}, "WORDY"),
    "sparse": ("SparseIndex", {"model": f"{__name__}:Heavy"}, "MADE"),
    "colbert": ("ColBERT", {"model": f"{__name__}:Fine"}, "FEW"),
    "dense": ("Dense", {"model": f"{__name__}:Wide"}, "MANY"),
    "IVF": ("Dense", {"model": f"{__name__}:Wide", "factory": "IVF64,Flat", "recall": 0.01}, "MADE"),
    "HNSW": ("Dense", {"model": f"{__name__}:Wide", "factory": "HNSW8", "recall": 0.01}, "MADE"),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_bound_is_kept(name: str, tmp_path: Path) -> None:
    """While it is built, changed and made one."""
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc here")
    command = [sys.executable, "-c", PROGRAM, name, tmp_path / "index"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    segments, seen = map(int, done.stdout.split()[-2:])
    assert segments == (2 if "factory" in KINDS[name][1] else 1)
    assert 96 << 20 < seen < 256 << 20, f"{seen >> 20} MB"
