"""Large indexes: built shard by shard, and searched segment by segment, wherever an engine does it.

A shard is so many documents of a collection, in its order, and becomes a segment of the index, so that nothing needs
merging. The engine changes no byte of the index but its dates and seconds. How it is cut changes nothing that is found,
but where a segment learns from its own documents (FAISS's indexes, compressed late interaction).
"""

from __future__ import annotations

import errno
import inspect
import os
import shutil
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from rankpipe.data import Doc, Query, Ranking
from rankpipe.datasets import Dataset
from rankpipe.engine import Engine
from rankpipe.errors import ArtefactError, RecipeError
from rankpipe.progress import notice, track
from rankpipe.retrieve.docs import lean, within
from rankpipe.retrieve.encoded import Encoded
from rankpipe.retrieve.living import Living
from rankpipe.retrieve.memory import ANY
from rankpipe.retrieve.parts import Part, folders, go_on, new_part
from rankpipe.retrieve.passages import Passages
from rankpipe.retrieve.segment import facts
from rankpipe.stage import Retriever
from rankpipe.store import Draft, Sums, publish
from rankpipe.where import Filter

SHARD = 1 << 16  # documents
TRIED = ".tried"  # where shards are written until they are whole


def build(
    kind: type[Living],
    data: Dataset,
    folder: Path,
    recipe: dict[str, Any],
    engine: Engine,
    shard: int = SHARD,
    memory: int = ANY,
) -> None:
    """Build an index of segments, each by a worker of the engine; what an interrupted build finished is not done again.

    :param recipe: with every argument.
    :param shard: documents of a segment; multiples of 4096 leave the batches of encoders what they are without shards.
    :param memory: bytes that the making of a segment may hold. A shard is not cut for it: it says how large the blocks
        are that it is made in, and what changes of the index may hold.
    :raises ClusterError: If workers do not see the folder, or die again and again.
    """
    if shard < 1:
        raise RecipeError([f"shard: {shard} documents; expected 1 or more"])
    what: dict[str, Any] = {"kind": kind.kind, "format": kind.format, "recipe": recipe, "data": data.data}
    cut = Passages.of(recipe.get("passages"))
    with publish(folder, **what, resume=goes_on(shard, memory)) as draft:
        shutil.rmtree(draft.folder / TRIED, ignore_errors=True)
        go_on(draft, alone=True)
        done = {int(made.name) for made in folders(draft.folder)}
        (mark := draft.folder / TRIED / uuid4().hex).mkdir(parents=True)
        engine.sees(mark)
        before = Part(draft.folder, home=folder, first=True)
        older = before.older() if kind.reuses else ()
        made_by = recipe
        if issubclass(kind, Encoded) and kind.undecided(recipe):
            decided = partial(kind.decided, facts=before.replaced(recipe, kind.ways))
            told = facts(draft.folder, kind.counts, cut, memory)
            made_by = kind.settled(recipe, told) if done else next(iter(engine.map(decided, [recipe])))
        make = Make(kind, draft.folder, older, made_by, cut, memory)
        jobs = ((number, docs) for number, docs in enumerate(dealt(data, shard)) if number not in done)
        total = -(-data.count // shard) - len(done) if data.count else None
        for sums in track(engine.map(make, jobs), f"{kind.kind} index of {data.name}, shards", total):
            draft.sums |= sums
        shutil.rmtree(draft.folder / TRIED)
        draft.facts = facts(draft.folder, kind.counts, cut, memory)


def goes_on(shard: int, memory: int) -> list[Any]:
    """What a build by shards goes on from only if it was told the same."""
    return ["shards", shard, memory]


def dealt(data: Dataset, shard: int) -> Iterator[list[Doc]]:
    """The shards of a collection, each of so many documents."""
    stream = iter(data.docs())
    while docs := list(islice(stream, shard)):
        yield docs


@dataclass(frozen=True)
class Make:
    """Makes segments.

    :param folder: of the draft of the index.
    :param older: segments of the index that it replaces.
    :param recipe: which leaves no choice to a worker, so that all choose the same.
    """

    kind: type[Living]
    folder: Path
    older: Sequence[Path]
    recipe: dict[str, Any]
    cut: Passages | None = None
    memory: int = ANY

    def __call__(self, job: tuple[int, list[Doc]]) -> Sums:
        """Make a segment of a shard, aside, and move it to its place when it is whole: so nobody goes on from what a
        dead worker has left, and two that were given the same shard are not in each other's way.
        """
        number, docs = job
        aside = self.folder / TRIED / uuid4().hex
        aside.mkdir(parents=True)
        with new_part(Draft(aside), self.folder, first=True, memory=self.memory, number=number) as made:
            made.known = self.older
            self.kind.fill(self.cut.split(docs) if self.cut else docs, made, self.recipe)
        place = self.folder / f"{number:06}"
        try:
            os.rename(made.folder, place)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            shutil.rmtree(aside)  # another was first, with the same
            return {}
        aside.rmdir()
        return {f"{place.name}/{name}": known for name, known in made.sums.items()}


class Spread(Retriever):
    """An index whose segments are searched side by side by the workers of an engine; finds what the index finds.

    Each worker opens its share of the segments, and reads of the others what statistics are made of. A worker that dies
    is replaced, and asked again. Where the index was changed before a worker came to open it, the state that is open
    here is searched here, without workers, which is said.

    :param index: opened; it is searched as it is now.
    :raises RecipeError: If it is none of segments.
    """

    opens = True

    def __init__(self, index: Retriever, engine: Engine) -> None:
        if not (isinstance(index, Living) and index.apart):
            raise RecipeError([f"{index.name}: an index of this kind has no segments to search side by side"])
        self.index, self.engine, self.batch = copy(index), engine, index.batch  # which may be refreshed
        self._alone = False  # whether only this process has the files still

    @property
    def name(self) -> str:
        """The index's."""
        return self.index.name

    def filtered(self, where: Filter | str) -> Self:
        """The same, of the filtered index."""
        return type(self)(self.index.filtered(where), self.engine)

    def run(self, batch: Sequence[Query]) -> Sequence[Ranking]:
        """Ask all workers, and merge what they have by score; equal scores as trec_eval breaks them."""
        if self._alone:
            return self.index.run(batch)
        try:
            told = self._crew(batch)
        except Changed as error:
            notice(f"{error}; it is searched as it was, in this process alone")
            self._alone = True
            return self.index.run(batch)
        for rankings in told:
            within(rankings, (s.docs for s in self.index.segments))
        return [
            Ranking.scored(query, chain.from_iterable(r.hits for r in found), self.index.k)
            for query, *found in zip(batch, *told, strict=True)
        ]

    @cached_property
    def _crew(self) -> Any:
        if not self.index.manifest.path.exists():
            raise Changed(f"{self.index.folder}: was changed since it was opened")
        self.engine.sees(self.index.manifest.path)
        workers = min(self.engine.workers, len(self.index.segments))
        parts = [range(len(self.index.segments))[i::workers] for i in range(workers)]
        return self.engine.crew([Search.of(self.index, part) for part in parts])


class Changed(ArtefactError):
    """A worker cannot open any more what was opened."""


@dataclass(frozen=True)
class Search:
    """Searches some segments of an index.

    :param arguments: the index is opened with.
    :param build: which is to be found there.
    :param part: names of its segments.
    """

    kind: type[Living]
    arguments: dict[str, Any]
    build: str
    part: Sequence[str]

    @classmethod
    def of(cls, index: Living, part: Sequence[int]) -> Search:
        """The same index with the same arguments, which it keeps under their names."""
        kept = {name: getattr(index, name) for name in inspect.signature(type(index)).parameters if name != "index"}
        return cls(
            type(index),
            {"index": index.folder, **kept},
            index.manifest.build,
            [index.segments[i].folder.name for i in part],
        )

    def __call__(self, batch: Sequence[Query]) -> list[Ranking]:
        """The best of these segments."""
        return lean(self.index.run(batch))

    @cached_property
    def index(self) -> Living:
        """Opened here."""
        opened = self.kind.__new__(self.kind)
        opened.part = self.part  # before it is opened, so that nothing else is read
        opened.__init__(**self.arguments)  # type: ignore[misc]
        if opened.manifest.build != self.build:
            raise Changed(f"{opened.folder}: was changed since it was opened")
        return opened
