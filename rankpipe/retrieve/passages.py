"""Long documents as passages: cut with offsets, found by their best or first one, put together again.

A segment of such an index holds passages as if they were documents. The id of a passage is that of its document, ``#``,
and where its text begins there: it cannot clash, and says all that is needed to put the document together again.
Outside the index nobody meets these ids.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from itertools import accumulate, groupby
from re import compile as regex
from typing import TYPE_CHECKING, Any, Literal

from rankpipe import weights
from rankpipe.catalog import near, need
from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.errors import RecipeError
from rankpipe.retrieve.docs import Docs, renamed

if TYPE_CHECKING:
    from rankpipe.retrieve.segment import Segment

HAN = "\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # and kana: no blanks between words
WORD = regex(rf"[{HAN}][^\s{HAN}]*|[^\s{HAN}]+")
SENTENCE_END = regex(r"[.!?…]+[\"'”’)\]]*\s+|[。！？]+[」』”’）]*\s*|\n\s*\n\s*")

Find = Callable[[Sequence[Query], int], Iterable[Iterable[Sequence[Hit]]]]  # of each segment the best so many


@dataclass(frozen=True)
class Passages:
    """How documents are cut, and how what is found of them counts (Dai & Callan 2019).

    Every passage has the title and the fields of its document. What blanks enclose is a word, and is never cut; so is
    each character of Chinese or Japanese. A word of more tokens than a passage may have is cut between tokens.

    :param max: words of a passage, at most.
    :param overlap: words at the end of a passage that the next one begins with, at most.
    :param sentences: end passages, and begin overlaps, where sentences do; one longer than a passage is cut anyway. A
        sentence ends at ``.!?…`` before a blank, at ``。！？`` or at an empty line; abbreviations end some more.
    :param tokens: a model whose tokens ``max`` and ``overlap`` are, instead of words; without its marks of beginning
        and end, and without titles.
    :param score: a document's is that of its best passage ("max", MaxP) or of its first one ("first", FirstP).
    :raises RecipeError: If an argument is out of its range; says all faults.
    """

    max: int = 150
    overlap: int = 0
    sentences: bool = True
    tokens: str | None = None
    score: Literal["max", "first"] = "max"

    def __post_init__(self) -> None:
        faults = []
        if self.max < 1:
            faults.append(f"passages.max: {self.max}; expected 1 or more")
        if not 0 <= self.overlap < max(self.max, 1):
            faults.append(f"passages.overlap: {self.overlap}; expected 0 or more, less than max")
        if self.score not in ("max", "first"):
            faults.append(f"passages.score: {self.score!r} is not one of max, first")
        if faults:
            raise RecipeError(faults)

    @classmethod
    def of(cls, said: Passages | Mapping[str, Any] | None) -> Passages | None:
        """As a recipe has it, a mapping of arguments, made one.

        :raises RecipeError: If it is no such mapping.
        """
        if said is None or isinstance(said, Passages):
            return said
        if not isinstance(said, Mapping):
            raise RecipeError([f"passages: {said!r}; expected arguments, such as passages.max=150"])
        known = [f.name for f in fields(cls)]
        if faults := [f"passages: no {name!r}{near(name, known)}" for name in said if name not in known]:
            raise RecipeError(faults)
        kinds = {"max": int, "overlap": int, "sentences": bool}
        wrong = [f"passages.{k}: {said[k]!r}; expected {t.__name__}" for k, t in kinds.items()
                 if k in said and type(said[k]) is not t]  # fmt: skip
        if wrong:
            raise RecipeError(wrong)
        return cls(**said)

    @property
    def told(self) -> dict[str, Any]:
        """As a manifest keeps it."""
        return asdict(self)

    def split(self, docs: Iterable[Doc]) -> Iterator[Doc]:
        """The passages of documents, in their order."""
        for doc in docs:
            for start, end in self.spans(doc.text):
                yield Doc(f"{doc.id}#{start}", doc.text[start:end], doc.title, doc.fields)

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where the passages of a text begin and end; together they are all of it, the first one begins at 0."""
        starts, sizes = self._units(text)
        total = [0, *accumulate(sizes)]
        ends = {m.end() for m in SENTENCE_END.finditer(text)} if self.sentences else set()
        begins = [i for i, start in enumerate(starts) if start in ends]  # units that sentences begin with
        first = done = 0
        while True:
            if (last := self._fits(total, first)) <= done:  # nothing new fits in behind the overlap
                first, last = done, self._fits(total, done)
            place = starts[first] if first else 0
            if last >= len(starts):
                yield place, len(text)
                return
            if (i := bisect_right(begins, last)) and begins[i - 1] > done:
                last = begins[i - 1]
            yield place, starts[last]
            first, done = max(bisect_left(total, total[last] - self.overlap), first + 1), last
            if (i := bisect_left(begins, first)) < len(begins) and begins[i] <= done:
                first = begins[i]

    def _fits(self, total: Sequence[int], first: int) -> int:
        """Before which unit a passage ends that begins with this one, at the latest; it has one at least."""
        return max(bisect_right(total, total[first] + self.max) - 1, first + 1)

    def _units(self, text: str) -> tuple[list[int], list[int]]:
        """Where what is not cut begins, rising, and the words or tokens of each."""
        words = [m.start() for m in WORD.finditer(text)]
        if self.tokens is None or not words:
            return words, [1] * len(words)
        tokens = _tokenizer(self.tokens).encode(text, add_special_tokens=False).offsets
        own = [(words[max(bisect_right(words, end - 1) - 1, 0)], start) for start, end in tokens]
        sizes = Counter(word for word, _ in own)
        pieces = Counter(word if sizes[word] <= self.max else max(word, start) for word, start in own)
        return sorted(pieces), [pieces[start] for start in sorted(pieces)]

    def found(self, find: Find, batch: Sequence[Query], k: int) -> list[Ranking]:
        """The ``k`` best documents for each query, exactly as if all passages had been scored.

        As many passages are looked up as it takes: twice as many again where ones that were not seen might still
        bring a document among the best. A hit is the document as it was found: under its id, with the text of the
        passage that counts.

        :param find: finds passages.
        """
        made: dict[int, list[Hit]] = {}
        fetch = 2 * k
        while left := [i for i in range(len(batch)) if i not in made]:
            for i, lists in zip(left, find([batch[i] for i in left], fetch), strict=True):
                seen = [list(hits) for hits in lists]
                hits = self._documents(hit for some in seen for hit in some)
                unseen = max((some[-1].score for some in seen if len(some) >= fetch), default=None)
                if unseen is None or sum(hit.score > unseen for hit in hits) >= k:
                    made[i] = hits
            fetch *= 2
        return [Ranking.scored(query, made[i], k) for i, query in enumerate(batch)]

    def _documents(self, hits: Iterable[Hit]) -> list[Hit]:
        """Of each document the hit that counts; of equal ones that which stands first in the text."""
        best: dict[str, tuple[float, int, Hit]] = {}
        for hit in hits:
            document, start = _parted(hit.doc.id)
            told = (hit.score, -start, hit)
            if (not start or self.score == "max") and (document not in best or told[:2] > best[document][:2]):
                best[document] = told
        return [Hit(renamed(hit.doc, document), hit.score) for document, (_, _, hit) in best.items()]


def heads(docs: Docs) -> Any:
    """Which passages are the first of their documents, (passages,) bool."""
    return docs.ids.ending("#0")


def documents(docs: Docs) -> list[str]:
    """Ids of the documents that passages are of."""
    return [_parted(docs.ids[place])[0] for place in heads(docs).nonzero()[0].tolist()]


def places(segment: Segment, ids: Iterable[str]) -> dict[str, range]:
    """Where the passages of these documents are, if they are alive: they lie together."""
    found = {}
    for head, place in segment.find(f"{i}#0" for i in ids).items():
        document, end = _parted(head)[0], place + 1
        while end < len(segment.docs) and _parted(segment.docs.ids[end])[0] == document:
            end += 1
        found[document] = range(place, end)
    return found


def joined(passages: Iterable[Doc]) -> Iterator[Doc]:
    """Documents from their passages, which come one after the other."""
    for document, parts in groupby(passages, lambda passage: _parted(passage.id)[0]):
        made = Doc(document, "")
        for part in parts:
            text = made.text + part.text[len(made.text) - _parted(part.id)[1] :]
            made = Doc(document, text, part.title, part.fields)
        yield made


def _parted(id: str) -> tuple[str, int]:
    """A passage's document, and where it begins there."""
    document, _, start = id.rpartition("#")
    return document, int(start)


@cache
def _tokenizer(model: str) -> Any:
    """How a model cuts texts into tokens, however long they are.

    :raises RecipeError: If its files do not say.
    """
    file = weights.resolve(model) / "tokenizer.json"
    if not file.exists():
        raise RecipeError([f"passages.tokens: {model}: no tokenizer.json in {file.parent}; count words instead"])
    made = need("tokenizers", name="passages", extra="all").Tokenizer.from_file(str(file))
    made.no_padding()
    made.no_truncation()
    return made
