"""What building an index will take, from a sample that is really indexed; and a refusal where that cannot be had."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from math import log
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any
from zipfile import BadZipFile

import numpy as np

from rankpipe.datasets import Dataset
from rankpipe.disk import shown
from rankpipe.errors import RecipeError
from rankpipe.progress import listening, working
from rankpipe.retrieve.grown import noted
from rankpipe.retrieve.memory import ANY, size_bytes
from rankpipe.retrieve.parts import folders
from rankpipe.retrieve.trial import Trial

SAMPLE = 8, 200, 4000  # documents that are tried: some to warm up; the more, where that takes less than QUICK_S
QUICK_S = 0.5
UNKNOWN = 100_000  # documents, where nobody knows how many there are
WORTH = 2000  # documents; of fewer nothing is said, for they are indexed in a moment
BESIDE = 16 << 20, 48 << 20  # bytes that libraries, blocks and batches take, about, of few documents and of FILLS
FILLS = 1 << 14  # documents
HEAPS = 0.5  # words are as many as this power of the documents, at least (Heaps 1978)
WORK = 2  # the end of the work takes as much again
GROWTH = 2  # while it is built, an index takes so many times its size


@dataclass(frozen=True)
class Forecast:
    """What a build will take, about. The first documents of a corpus need not be like the others.

    :param documents: how many there will be; if nobody knows, :data:`UNKNOWN`, so that one can multiply.
    :param counted: whether they were.
    :param seconds: for what is not done, without loading a model.
    :param memory_bytes: held at once, beside Python and the model.
    :param disk_bytes: that the build wants to be free.
    :param size_bytes: of the index in the end.
    :param sample: documents that were tried.
    :param without: what is not in the seconds, which may take most of them; nothing if that is as nothing.
    :param done: documents that an interrupted build has left, from which this one goes on.
    """

    documents: int
    seconds: float
    memory_bytes: int
    disk_bytes: int
    size_bytes: int
    sample: int
    counted: bool = True
    without: str = ""
    done: int = 0

    def __str__(self) -> str:
        each, done = "" if self.counted else "each ", f", {self.done} of them done" if self.done else ""
        rest = " for the rest" if self.done else ""
        return (
            f"{each}{self.documents} documents{done}: about {self._seconds}{rest}, {shown(self.memory_bytes)} of "
            f"memory and {shown(self.disk_bytes)} of disk on the way, {shown(self.size_bytes)} in the end (judged by "
            f"{self.sample} of them)"
        )

    def beside(self, seconds: float, size_bytes: int) -> str:
        """What was foretold, and what came of it."""
        return (
            f"foretold were about {self._seconds} and {shown(self.size_bytes)}; "
            f"it took {_time(seconds)} and {shown(size_bytes)}"
        )

    @property
    def _seconds(self) -> str:
        return _time(self.seconds) + (f" (without {self.without})" if self.without else "")

    def refuse(self, memory: float, disk: float) -> None:
        """Refuse what cannot come to its end.

        :param memory: bytes that can be had; also ``disk``.
        :raises RecipeError: If it takes more; says the numbers, and what helps.
        """
        faults = []
        if not self.counted:
            return
        if self.memory_bytes > memory:
            cure = f"build it in less, for example --memory {shown(max(memory / 2, 1)).replace(' ', '')}"
            faults.append(f"memory: about {shown(self.memory_bytes)} are needed, {shown(memory)} are free; {cure}")
        if self.disk_bytes > disk:
            faults.append(f"disk: about {shown(self.disk_bytes)} are needed, {shown(disk)} are free; free some")
        if faults:
            raise RecipeError(faults)

    def refuse_shards(self, memory: float, shard: int) -> None:
        """Refuse shards that do not fit in, for a shard is not cut.

        :param memory: bytes that each worker may hold.
        :param shard: documents of one.
        :raises RecipeError: If one takes more; says how many documents would not.
        """
        if self.memory_bytes > memory:
            fits = max(int(shard * memory / self.memory_bytes / WORK), 1)
            held = f"a shard of {shard} documents holds about {shown(self.memory_bytes)}, more than {shown(memory)}"
            raise RecipeError([f"memory: {held}; make shards smaller, for example --shard {fits}"])


def forecast(
    kind: type[Any],
    data: Dataset,
    recipe: dict[str, Any],
    memory: str | int | None = None,
    shard: int | None = None,
    work: Path | None = None,
) -> Forecast | None:
    """What ``kind.build`` would take; None if the collection is small, or the kind has no ``trial``.

    :param recipe: of the index, with every argument.
    :param memory: as ``build`` takes it.
    :param shard: documents that are held at once, if not all: then memory is that of each worker.
    :param work: where the build goes on from what an interrupted one has left, if it has left anything.
    """
    documents = UNKNOWN if data.count is None else data.count
    if documents < WORTH or not hasattr(kind, "trial"):
        return None
    limit, tried = size_bytes(memory), list[Trial]()
    make = kind.trial(recipe, limit)
    with working(f"trying documents of {data.name}, to foretell what their index takes"), listening(None):
        for sample in SAMPLE:
            with TemporaryDirectory() as folder:
                docs, start = list(islice(data.docs(), sample)), perf_counter()
                tried.append(make(docs, Path(folder)))
                seconds = perf_counter() - start
            if sample > SAMPLE[0] and seconds > QUICK_S:
                break
        more = tried[-1].foretold(documents)
    last, times = tried[-1], documents / len(docs)
    done, there = _done(work) if work and data.count else (0, 0)
    done = min(round(done / last.each), documents)
    together = min(shard or documents, documents)
    grown = WORK * _held(tried[-2:], together)
    held = last.fixed_bytes + beside(together) + (min(grown, limit) if limit < ANY and shard is None else grown)
    size = last.size_bytes * times
    sizes = round(held), max(round(GROWTH * size) - there, 0), round(size)
    without, left = last.without if more is None else "", (documents - done) / len(docs)
    return Forecast(documents, seconds * left + (more or 0), *sizes, len(docs), data.count is not None, without, done)


def _done(work: Path) -> tuple[int, int]:
    """How many documents, or passages, an interrupted build has indexed, or encoded, or counted; and its bytes."""
    try:
        told = [json.loads(whole.read_text("utf-8")) for whole in work.glob("*/facts.json")]
        told += [noted(made) for made in folders(work) if not (made / "facts.json").exists()]
        done = sum(one.get("documents", 0) for one in told)
        done += sum(len(np.load(counted)["distinct"]) for counted in work.glob("*/spill.npz"))
        return done, sum(file.stat().st_size for file in work.rglob("*") if file.is_file())
    except (OSError, ValueError, BadZipFile):  # there is none, or it is harmed, or another process is at it
        return 0, 0


def beside(documents: int) -> int:
    """Bytes that are held beside what grows with every document."""
    few, many = BESIDE
    return few + (many - few) * min(documents, FILLS) // FILLS


def _held(tried: Sequence[Trial], documents: int) -> float:
    """Bytes that so many documents hold, and their words and fields, of which fewer and fewer are new."""
    few, many = tried
    times, more = documents / many.documents, log(many.documents / few.documents)
    held = many.held_bytes * times
    for before, after in ((few.words_bytes, many.words_bytes), (few.fields_bytes, many.fields_bytes)):
        power = log(after / before) / more if more and before else 1.0
        held += after * times ** min(max(power, HEAPS), 1.0)
    return float(held)


def free_memory() -> float:
    """Bytes that this machine, or the container that this runs in, can still give."""
    told = [float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))]
    meminfo, group = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
    if meminfo.exists():
        lines = meminfo.read_text().splitlines()
        told += [1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    if (group / "memory.max").exists() and (most := (group / "memory.max").read_text().strip()).isdecimal():
        used = (group / "memory.stat").read_text().split()
        told.append(float(most) - float(used[used.index("anon") + 1]))
    return min(told)


def free_disk(folder: Path) -> float:
    """Bytes that are free where a folder is, or will be."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return float(shutil.disk_usage(there).free)


def _time(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
