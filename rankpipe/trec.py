"""TREC run and qrels files: read leniently, write strictly.

A run is ``{query id: {document id: score}}``. trec_eval keeps scores in single precision, sorts by score and then by
document id, both falling, and ignores the rank column; so does everything here.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from struct import pack, unpack

from rankpipe.data import Ranking
from rankpipe.disk import write
from rankpipe.errors import DataError

Run = dict[str, dict[str, float]]
Qrels = dict[str, dict[str, int]]
LARGEST = 2.0**127  # scores beyond are cut to it: room is left below for ties


@dataclass(frozen=True)
class RunFile:
    """A run as read, and what was odd about it."""

    path: Path
    run: Run
    tags: tuple[str, ...]
    contradictions: int  # queries whose rank column orders otherwise than their scores
    ties: int  # queries with equal scores, which trec_eval orders by document id
    tagless: int = 0  # lines of 5 fields that end in two numbers: rank and score, and no tag

    @property
    def oddities(self) -> list[str]:
        """What a reader should know, in words."""
        notes = []
        if self.tagless:
            notes.append(
                f"{self.path}: lines of 5 fields that end in two numbers, read as rank and score, the tag missing: "
                f"{self.tagless}"
            )
        if self.contradictions:
            notes.append(
                f"{self.path}: in {self.contradictions} of {len(self.run)} queries the ranks contradict the scores; "
                "trec_eval, and we, go by the scores"
            )
        if self.ties:
            notes.append(
                f"{self.path}: {self.ties} of {len(self.run)} queries have tied scores; ordered by id, falling"
            )
        return notes


def single(x: float) -> float:
    """``x`` rounded to single precision, as trec_eval stores it; infinite where that ends."""
    return float(unpack("f", pack("f", x))[0])


def below(x: float) -> float:
    """The next single-precision number under ``x``."""
    if x == 0:
        return -(2.0**-149)
    [bits] = unpack("i", pack("f", x))
    return float(unpack("f", pack("i", bits - 1 if x > 0 else bits + 1))[0])


def ordered(scores: dict[str, float]) -> list[str]:
    """Document ids best first, as trec_eval sorts them."""
    return sorted(sorted(scores, reverse=True), key=lambda d: single(scores[d]), reverse=True)


def strict(ranking: Ranking) -> tuple[dict[str, float], int]:
    """Scores that fall strictly in single precision, so that no reader can order the hits otherwise.

    :return: document id -> score, best first; and how many scores had to be lowered for it.
    """
    scores, last, lowered = {}, inf, 0
    for hit in ranking.hits:
        score = max(min(single(hit.score), LARGEST), -LARGEST)
        if score >= last:
            score, lowered = below(last), lowered + 1
        last = score
        scores[hit.doc.id] = float(f"{score:.9g}")  # as it is written; the same number in single precision
    return scores, lowered


def to_run(rankings: Iterable[Ranking]) -> Run:
    """The run that :func:`write_run` would write."""
    return {r.query.id: strict(r)[0] for r in rankings}


def write_run(path: Path, rankings: Iterable[Ranking], tag: str = "rankpipe") -> int:
    """Write ``query Q0 document rank score tag`` lines, all or nothing; gzipped if the name ends in ``.gz``.

    :return: how many scores were lowered to make them fall strictly.
    :raises DataError: If an id or the tag has white space or is empty: the format cannot hold it.
    """
    path, lowered, lines = Path(path), 0, []
    _writable(tag, "tag")
    for ranking in rankings:
        query = _writable(ranking.query.id, "query id")
        scores, low = strict(ranking)
        lowered += low
        for rank, (doc, score) in enumerate(scores.items(), 1):
            lines.append(f"{query} Q0 {_writable(doc, 'document id')} {rank} {score:.9g} {tag}\n")
    with write(path, "wb") as f:
        content = "".join(lines).encode()
        f.write(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return lowered


def read_run(path: Path) -> RunFile:
    """Read a TREC run: tabs or spaces, ``.gz``, ranks missing, zero or wrong; order is by score. Also MS MARCO's
    ``query document rank``, whose scores become -rank.

    Of 5 fields the last tells which is missing. Where it is no number, it is the tag, and there is no rank: ``query
    Q0 document score tag``. Where the last two are numbers, there is no tag: ``query Q0 document rank score``; it
    becomes "", and ``oddities`` counts such lines, for a tag that is a number would be taken for the score.

    :raises DataError: If a line has not 6 fields (5 if the rank or the tag is missing), a score is no number, or a
        document comes twice for a query; says the file and line.
    """
    run: Run = {}
    ranks: dict[str, dict[str, float]] = {}
    tags: dict[str, None] = {}
    tagless = 0
    for place, fields in records(path):
        if fields[0] == "query-id" or (len(fields) == 4 and _numeric(fields[3])):
            raise DataError(f"{place}: judgements, where a run is expected; eval and compare take them with --qrels")
        if len(fields) == 3:  # MS MARCO: query, document, rank
            fields = [fields[0], "Q0", fields[1], fields[2], str(-_number(fields[2], place, "rank")), "msmarco"]
        if len(fields) not in (5, 6):
            fields = " ".join(fields).split()
        if len(fields) == 5 and _numeric(fields[3]) and _numeric(fields[4]):
            fields.append("")
            tagless += 1
        elif len(fields) == 5:
            fields.insert(3, "")
        if len(fields) != 6:
            raise DataError(f"{place}: {len(fields)} fields, expected 6 (query, Q0, document, rank, score, tag)")
        query, _, doc, rank, score, tag = fields
        scores = run.setdefault(query, {})
        if doc in scores:
            raise DataError(f"{place}: document {doc!r} is there twice for query {query!r}")
        scores[doc] = _number(score, place)
        if rank:
            ranks.setdefault(query, {})[doc] = _number(rank, place, "rank")
        tags[tag] = None
    contradictions = ties = 0
    for query, scores in run.items():
        told = [rank for _, rank in sorted((-single(scores[d]), rank) for d, rank in ranks.get(query, {}).items())]
        contradictions += told != sorted(told)  # of equal scores any order will do
        ties += len({single(score) for score in scores.values()}) < len(scores)
    return RunFile(path, run, tuple(tags), contradictions, ties, tagless)


def read_qrels(path: Path) -> Qrels:
    """Read judgements: TREC's ``query iteration document grade``, or BEIR's 3 columns under a header.

    :raises DataError: If a line is neither, a grade is no whole number, or a pair is judged twice differently.
    """
    qrels: Qrels = {}
    beir = False
    for place, fields in records(path):
        if fields[0] == "query-id":
            beir = True
            continue
        if len(fields) == 6 and _numeric(fields[3]) and _numeric(fields[4]):
            raise DataError(f"{place}: a run, where judgements are expected (query, iteration, document, relevance)")
        if len(fields) != (3 if beir else 4):
            expected = "3 (query-id, corpus-id, score)" if beir else "4 (query, iteration, document, relevance)"
            raise DataError(f"{place}: {len(fields)} fields, expected {expected}")
        query, doc, grade = fields[0], fields[-2], _number(fields[-1], place, "relevance")
        if grade != int(grade):
            raise DataError(f"{place}: the relevance {fields[-1]!r} is no whole number")
        if qrels.setdefault(query, {}).setdefault(doc, int(grade)) != grade:
            raise DataError(f"{place}: {query} {doc} is judged {qrels[query][doc]} and {int(grade)}")
    return qrels


def write_qrels(path: Path, qrels: Qrels) -> None:
    """Write ``query 0 document grade`` lines, all or nothing."""
    with write(path) as f:
        f.writelines(f"{query} 0 {doc} {grade}\n" for query, grades in qrels.items() for doc, grade in grades.items())


def records(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The fields of each line that is not blank, with its place ``file:line``. Tabs separate where there are any.

    :raises DataError: If the file is missing, is no UTF-8 text, or is no gzip though its name says so.
    """
    for place, line in lines(path):
        fields = [f.strip() for f in line.split("\t")] if "\t" in line else line.split()
        yield place, fields


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines that are not blank, each with its place ``file:line``; ``.gz`` is unpacked.

    :raises DataError: If the file is missing, is no UTF-8 text, or is no gzip though its name says so.
    """
    path, number = Path(path), 0  # a text will do
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as f:
            for number, raw in enumerate(f, 1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if line.strip():
                    yield f"{path}:{number}", line
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder, expected a file") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:{number}: not UTF-8 ({error.reason})") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}:{number + 1}: not a whole gzip file ({error})") from None


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(text: str, place: str, name: str = "score") -> float:
    try:
        value = float(text)
    except ValueError:
        raise DataError(f"{place}: the {name} {text!r} is no number") from None
    if not isfinite(value):
        raise DataError(f"{place}: the {name} is {text}, expected a finite number")
    return value


def _writable(text: str, name: str) -> str:
    if not text or any(c.isspace() for c in text):
        raise DataError(
            f"the {name} {text!r} is empty or has white space, which a TREC run cannot hold; "
            "write a .jsonl ranking instead, or rename it"
        )
    return text
