"""Nearest neighbours by FAISS (Douze et al. 2024): any index that its factory makes, measured against exact search.

What FAISS finds is scored exactly from the vectors that a segment keeps, so that scores are the same however they were
found, and an index of codes (PQ, SQ) need only bring the right documents near the top.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from math import ceil, log2, sqrt
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankpipe.disk import write
from rankpipe.errors import MissingExtra, RecipeError
from rankpipe.onnx import cores
from rankpipe.progress import working
from rankpipe.retrieve.memory import ANY
from rankpipe.retrieve.nearest import Exact, Field, Found, Nearest
from rankpipe.retrieve.recall import OF_DOCUMENTS, Asked, drawn, measured, recall
from rankpipe.retrieve.vectors import Vectors

RECALL = 0.95  # of the ten nearest, where no other is asked for
KNOBS = ("efSearch", "nprobe")  # how thorough a search is: of HNSW, of IVF
COARSE = "quantizer_efSearch"  # the same of an IVF whose lists are found by HNSW
GRAPH_MOST = 2_000_000  # documents; a graph of more takes too long to make
FEW = 10_000  # documents; so many are compared as fast as FAISS finds some of them
FINER = 3  # halvings between a setting that is not enough and the double of it that is
LOOKS = 16  # documents that FAISS compares for each one it finds, about
GPU_MOST = 2048  # neighbours that FAISS finds on a GPU
BLOCK = 1 << 13  # vectors handed over at once, if they are kept as other numbers than FAISS's
SHARE = 4  # a quarter of the memory for what FAISS holds: as much is mapped; the rest is for its training and libraries


def asked_for(recipe: dict[str, Any]) -> bool:
    """Whether large segments are to be searched by FAISS."""
    return recipe["factory"] != "exact" or recipe.get("recall") is not None


def row_bytes(dimension: int) -> int:
    """What FAISS holds of a document, at most: its vector, and its neighbours in a graph."""
    return 4 * dimension + 272


class Faiss(Nearest):
    """An index of FAISS over a field, where it lies: on the CPU or a GPU.

    :param device: "cpu", "cuda" or "cuda:1".
    """

    def __init__(self, field: Field, index: Any, device: str) -> None:
        super().__init__(field)
        self.index, self.device, self.turning = index, device, Lock()
        self.knobs: dict[str, int] = {}
        self.living = index.ntotal if field.alive is None else int(field.alive.sum())

    @classmethod
    def opened(cls, field: Field, folder: Path, device: str, knobs: Mapping[str, int] | None = None) -> Faiss:
        """What :func:`build` has made, memory-mapped where its kind allows.

        :param knobs: to be turned otherwise than they were found to be enough; those that it has.
        :raises RecipeError: If FAISS has no such device, or cannot hold such an index there.
        :raises MissingExtra: If the device is a GPU, and FAISS is the one for CPUs.
        :raises FileNotFoundError: If it is gone.
        """
        faiss, path = _faiss(), folder / "faiss.index"
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError:  # all that FAISS ever raises
            path.stat()
            raise
        found = cls(field, _placed(index, device), device)
        tuned = _tuned_to(folder)
        found.knobs = tuned | {knob: value for knob, value in (knobs or {}).items() if knob in tuned}
        return found

    def among(self, alive: NDArray[np.bool_] | None, k: int) -> Nearest:
        """A search for the ``k`` nearest among other documents of the field: an exact one where that is as fast, or
        where FAISS cannot find enough.

        It is, of no more than :data:`FEW` documents, or than :data:`LOOKS` for each one that FAISS would have to find.
        FAISS is not told which documents are sought (it has selectors for some kinds of index, and not on a GPU): it
        is asked for as many more as are not, and looks as much further.
        """
        made = copy(self)
        made.field = replace(self.field, alive=alive)
        made.living = made.index.ntotal if alive is None else int(np.count_nonzero(alive))
        fetch = made.fetch(min(k, made.living))
        exact = made.living <= max(FEW, LOOKS * fetch) or fetch > made.most
        return Exact(made.field) if exact else made

    @property
    def most(self) -> int:
        """How many documents FAISS can find."""
        total: int = self.index.ntotal
        return total if self.device == "cpu" else min(total, GPU_MOST)

    def fetch(self, k: int) -> int:
        """How many documents FAISS is asked for, so that ``k`` of them may be found: the share of those that may not,
        some to choose from where its scores are of codes.
        """
        share: float = self.living / self.index.ntotal
        return ceil((k + min(3 * k + 40, 300)) / share) if share else 0

    def settings(self) -> Iterator[dict[str, int]]:
        """What its knob can be turned to, from the fastest on; one setting of nothing if it has none."""
        space = _space(self.device)
        space.initialize(self.index)
        ranges = [space.parameter_ranges.at(i) for i in range(space.parameter_ranges.size())]
        known = {r.name: _faiss().vector_to_array(r.values).astype(int).tolist() for r in ranges}
        if not (knobs := [knob for knob in KNOBS if knob in known]):
            yield {}
        for knob in knobs:
            last = max(known[knob], default=1)
            for value in (*known[knob], 2 * last, 4 * last):
                yield {knob: value, COARSE: 2 * value} if COARSE in known else {knob: value}

    def search(self, queries: Vectors, k: int) -> list[Found]:
        """What FAISS finds, scored exactly; fewer than ``k`` if it looks at fewer.

        It is asked for more (:meth:`fetch`), and for twice as many where the cut at ``k`` goes through equal scores.
        """
        if not (k := min(k, self.living)):
            return [(np.empty(0, np.intp), np.empty(0, np.float32))] * len(queries)
        fetch = min(self.fetch(k), most := self.most)
        while True:
            with self.turning:  # the knobs are those of all threads that search this index
                self._turn(fetch)
                rough, places = self.index.search(queries, fetch)  # (Q, fetch) each; place -1: it looked at fewer
            there = places >= 0 if self.field.alive is None else (places >= 0) & self.field.alive[places]
            if fetch == most or _enough(rough, places, there, k):
                break
            fetch = min(2 * fetch, most)
        return [self.field.best(q, p[t], k) for q, p, t in zip(queries, places, there, strict=True)]

    def _turn(self, fetch: int) -> None:
        """Set the knobs, further by the share of the dead. HNSW finds no more than it keeps (efSearch)."""
        for knob, value in self.knobs.items():
            further = ceil(value * self.index.ntotal / self.living)
            _space(self.device).set_index_parameter(
                self.index, knob, max(further, fetch) if knob == "efSearch" else further
            )


def build(
    field: Field,
    folder: Path,
    *,
    factory: str,
    recall: float | None,
    train: int,
    device: str,
    memory: int = ANY,
    asked: Asked | None = None,
) -> dict[str, Any]:
    """Make an index of a field (``faiss.index``), and measure it (``faiss.json``).

    :param factory: FAISS's word for it; "exact" if one is to be picked that has the recall.
    :param recall: the share of the ten nearest documents that is to be found; :data:`RECALL` if None.
    :param train: documents that it is trained on, at most.
    :param memory: bytes of vectors that it is trained on take an eighth of this, at most.
    :param asked: queries to measure it with; documents if None.
    :return: what is known of it: factory, knob, recall at 10 and 100, and that it is of documents, if it is. The recall
        is below what was asked for where no knob of this factory is enough for that.
    :raises RecipeError: If FAISS cannot make, train or fill such an index.
    """
    documents, row = len(field.kept), 4 * field.kept.vectors.shape[1]
    train = min(train, max(memory // 8 // row, 1))
    for name in [factory] if factory != "exact" else picked(documents, device):
        with working(f"FAISS index {name} of {documents} documents"):
            try:
                made = _filled(field, name, train, device)
            except RuntimeError as error:
                raise RecipeError([f"factory: FAISS cannot make {name!r} of {documents} documents: {error}"]) from None
            told = {"factory": name, **_tuned(made, recall or RECALL, asked)}
        if told["recall_at_10"] >= (recall or RECALL):
            break
    faiss = _faiss()
    index = made.index if device == "cpu" else faiss.index_gpu_to_cpu(made.index)
    with write(folder / "faiss.index", "wb") as f:
        faiss.write_index(index, faiss.PyCallbackIOWriter(f.write))
    with write(folder / "faiss.json") as f:
        json.dump(told, f)
    return told


def unturnable(segments: Iterable[Nearest], knobs: Mapping[str, int]) -> list[str]:
    """What is wrong with turning knobs so, in an index of such segments."""
    if not knobs:
        return []
    known = {knob for one in segments if isinstance(one, Faiss) for knob in one.knobs}
    there = f"it has {', '.join(sorted(known))}" if known else "it has none of the kind"
    faults = [f"{knob}: not of this index; {there}" for knob in knobs if knob not in known]
    return faults + [f"{knob}: {value}; expected 1 or more" for knob, value in knobs.items() if value < 1]


def _tuned_to(folder: Path) -> dict[str, int]:
    """How the knobs of a segment's index were turned when it was built."""
    told = json.loads((folder / "faiss.json").read_text("utf-8"))
    return {knob: told[knob] for knob in (*KNOBS, COARSE) if knob in told}


def gpu(device: str) -> int | None:
    """The number of a GPU that FAISS can use; None for the CPU.

    :raises RecipeError: If there is no such device.
    :raises MissingExtra: If it is a GPU, and FAISS is the one for CPUs.
    """
    name, _, number = device.partition(":")
    if device == "cpu":
        return None
    if name != "cuda" or not (number or "0").isdecimal():
        raise RecipeError([f"device: {device!r}; expected cpu, cuda or cuda:NUMBER"])
    if not hasattr(faiss := _faiss(), "StandardGpuResources"):
        raise MissingExtra.of(f"device={device}", "faiss-gpu", "gpu")
    if int(number or 0) >= faiss.get_num_gpus():
        raise RecipeError([f"device: {device}: FAISS sees {faiss.get_num_gpus()} GPUs here"])
    return int(number or 0)


def _faiss() -> Any:
    """FAISS, on as many threads as this process may have cores: OpenMP does not see every limit."""
    import faiss

    faiss.omp_set_num_threads(cores())
    return faiss


def _placed(index: Any, device: str) -> Any:
    if (number := gpu(device)) is None:
        return index
    try:
        return (faiss := _faiss()).index_cpu_to_gpu(faiss.StandardGpuResources(), number, index)
    except RuntimeError as error:
        raise RecipeError([f"device: {device}: FAISS cannot hold such an index there: {error}"]) from None


def _space(device: str) -> Any:
    """Who knows the knobs of an index."""
    return _faiss().ParameterSpace() if device == "cpu" else _faiss().GpuParameterSpace()


def picked(documents: int, device: str) -> Sequence[str]:
    """What is tried for so many documents, in turn. The last one has any recall: it can look at everything."""
    lists = 1 << round(log2(4 * sqrt(documents)))
    inverted = f"IVF{lists},Flat"
    return [inverted] if device != "cpu" or documents > GRAPH_MOST else ["HNSW32", inverted]


def index_of(factory: str, dimension: int) -> Any:
    """An empty one."""
    return (faiss := _faiss()).index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)


def _filled(field: Field, factory: str, train: int, device: str) -> Faiss:
    kept = field.kept
    index = _placed(index_of(factory, kept.vectors.shape[1]), device)
    if not index.is_trained:
        places = np.random.default_rng(0).choice(len(kept), min(train, len(kept)), replace=False)
        index.train(kept.rows(np.sort(places)))
    step = len(kept) if kept.vectors.dtype == np.float32 else BLOCK  # what FAISS lets grow takes as much again
    for start in range(0, len(kept), step):
        index.add(np.ascontiguousarray(kept.rows(slice(start, start + step))))
    return Faiss(field, index, device)


def _tuned(made: Faiss, target: float, asked: Asked | None) -> dict[str, Any]:
    """Turn the knob until the recall is reached; the knob and the recall."""
    some = drawn(len(kept := made.field.kept))
    own, queries = asked or Asked(some, np.ascontiguousarray(kept.rows(some)))
    truth = Exact(made.field).search(queries, 101)

    def enough() -> bool:
        return recall(made.search(queries, 11), truth, own, 10) >= target

    less = dict[str, int]()
    for knobs in made.settings():
        made.knobs = knobs
        if enough():
            break
        less = made.knobs
    for _ in range(FINER if less and less != made.knobs else 0):  # if one is enough, and another is not
        last, made.knobs = made.knobs, {knob: (low + made.knobs[knob]) // 2 for knob, low in less.items()}
        if not enough():
            less, made.knobs = made.knobs, last
    return {**made.knobs, **measured(lambda k: made.search(queries, k), truth, own), **({} if asked else OF_DOCUMENTS)}


def _enough(rough: NDArray[np.float32], places: NDArray[np.intp], there: NDArray[np.bool_], k: int) -> bool:
    """Whether each query has ``k`` living documents and the next ones' scores are lower, or has all it can get."""
    seen = there.cumsum(axis=1)
    last = rough[np.arange(len(rough)), (seen >= k).argmax(axis=1)]  # the score of the k-th, if there is one
    return bool(((places[:, -1] < 0) | ((seen[:, -1] >= k) & (last > rough[:, -1]))).all())
