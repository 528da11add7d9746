import gzip
from itertools import pairwise
from pathlib import Path
from struct import pack, unpack

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rankpipe import Doc, Hit, Query, Ranking
from rankpipe.errors import DataError
from rankpipe.trec import (
    LARGEST,
    below,
    lines,
    ordered,
    read_qrels,
    read_run,
    single,
    strict,
    to_run,
    write_qrels,
    write_run,
)

FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def ranking(scores: dict[str, float], query: str = "1") -> Ranking:
    return Ranking.scored(Query(query, "q"), [Hit(Doc(d, ""), s) for d, s in scores.items()])


def test_the_format(tmp_path: Path) -> None:
    path = tmp_path / "a.trec"
    assert write_run(path, [ranking({"d1": 1.5, "d2": 2.0}), ranking({}, "2")], tag="bm25") == 0
    assert path.read_text() == "1 Q0 d2 1 2 bm25\n1 Q0 d1 2 1.5 bm25\n"
    write_run(path, [ranking({"d1": 1.0})])
    assert path.read_text() == "1 Q0 d1 1 1 rankpipe\n"


def test_tied_scores_are_lowered_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.trec"
    assert write_run(path, [ranking({"a": 1.0, "b": 1.0, "c": 1.0, "d": 0.5})]) == 2
    assert write_run(path, [ranking({"a": 1.0, "b": 1.0, "c": 1.0}), ranking({"a": 1.0, "b": 1.0}, "2")]) == 3
    run = read_run(path)
    assert ordered(run.run["1"]) == ["c", "b", "a"]
    assert (run.ties, run.contradictions) == (0, 0)
    assert (run.oddities, run.path, run.tags) == ([], path, ("rankpipe",))


@given(st.lists(FLOATS, max_size=30))
def test_written_scores_fall_strictly_in_single_precision(scores: list[float]) -> None:
    made, lowered = strict(ranking({f"d{i}": s for i, s in enumerate(scores)}))
    written = [unpack("f", pack("f", float(f"{s:.9g}")))[0] for s in made.values()]
    assert all(a > b for a, b in pairwise(written))
    assert 0 <= lowered <= len(scores)


@given(st.floats(allow_nan=False))
@example(1e300)
@example(-1e300)
@example(2.0**128 - 2.0**103)  # half-way from the largest number to the next: infinite
def test_single_precision_is_numpys(x: float) -> None:
    with np.errstate(over="ignore"):
        assert single(x) == float(np.float32(x))


@given(st.floats(-LARGEST, LARGEST).map(single))
def test_below_is_the_next_number(x: float) -> None:
    assert below(x) == float(np.nextafter(np.float32(x), np.float32(-np.inf)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text("abcé漢", min_size=1), st.dictionaries(st.text("xyzß", min_size=1), FLOATS), max_size=4))
def test_a_run_survives_the_file(tmp_path: Path, run: dict[str, dict[str, float]]) -> None:
    rankings = [ranking(scores, query) for query, scores in run.items()]
    for name in ("a.trec", "a.trec.gz"):
        write_run(tmp_path / name, rankings)
        assert read_run(tmp_path / name).run == {q: s for q, s in to_run(rankings).items() if s}


def test_gzip_is_reproducible(tmp_path: Path) -> None:
    for name in "ab":
        write_run(tmp_path / f"{name}.gz", [ranking({"a": 1.0})])
    made = (tmp_path / "a.gz").read_bytes()
    assert made == (tmp_path / "b.gz").read_bytes()
    assert made[4:8] == bytes(4)  # RFC 1952: no time stamp


def test_reads_what_the_world_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.trec"
    path.write_text("1\tQ0\td1\t0\t3.5\tx\n1 Q0\td2 0 4.5 x\r\n\n1 Q0 d3 2.5 x\n")
    read = read_run(path)
    assert read.run == {"1": {"d1": 3.5, "d2": 4.5, "d3": 2.5}}
    assert ordered(read.run["1"]) == ["d2", "d1", "d3"]
    assert read.oddities == []  # ranks that are all 0, or not there, contradict nothing
    path.write_text("1 Q0 d1 2.5 x\n1 Q0 d2 3.5 y\n")
    assert (read_run(path).run, read_run(path).tags) == ({"1": {"d1": 2.5, "d2": 3.5}}, ("x", "y"))
    path.write_text("1\tQ0\td 1\t1\t3.5\tx\n1\tQ0\td 2\t2.5\tx\n")  # between tabs, blanks belong to the id
    assert read_run(path).run == {"1": {"d 1": 3.5, "d 2": 2.5}}


@pytest.mark.parametrize("gap", [" ", "\t"])
def test_of_five_fields_the_last_tells_which_is_missing(gap: str, tmp_path: Path) -> None:
    path = tmp_path / "a.trec"
    path.write_text("1 Q0 d1 1 9.5\n1 Q0 d2 2 -7\n1 Q0 d3 3 1e-3\n".replace(" ", gap))
    read = read_run(path)
    assert (read.run, read.tags, read.tagless) == ({"1": {"d1": 9.5, "d2": -7.0, "d3": 0.001}}, ("",), 3)
    assert ordered(read.run["1"]) == ["d1", "d3", "d2"]
    assert read.contradictions == 1  # the ranks are read as ranks
    told = f"{path}: lines of 5 fields that end in two numbers, read as rank and score, the tag missing: "
    assert read.oddities[0] == told + "3"
    path.write_text("1 Q0 d1 1 9.5\n1 Q0 d2 8.5 x2\n1 Q0 d3 3 7.5 7\n".replace(" ", gap))
    read = read_run(path)
    assert (read.run, read.tags, read.tagless) == ({"1": {"d1": 9.5, "d2": 8.5, "d3": 7.5}}, ("", "x2", "7"), 1)
    assert read.oddities == [told + "1"]
    path.write_text("1 Q0 d1 1 nan\n".replace(" ", gap))
    with pytest.raises(DataError, match=r"a\.trec:1: the score is nan, expected a finite number"):
        read_run(path)
    path.write_text("1 Q0 d1 x 9.5\n".replace(" ", gap))
    with pytest.raises(DataError, match=r"a\.trec:1: the score 'x' is no number"):
        read_run(path)


def test_lines_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes("\ufeffa\t \r\n\n \n\ufeffb\tX\n  c".encode())
    assert [*lines(path)] == [(f"{path}:1", "a\t "), (f"{path}:4", "\ufeffb\tX"), (f"{path}:5", "  c")]


def test_reads_ms_marco(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("1\td1\t1\n1\td2\t2\n")
    read = read_run(path)
    assert (read.run, read.tags) == ({"1": {"d1": -1.0, "d2": -2.0}}, ("msmarco",))
    assert ordered(read.run["1"]) == ["d1", "d2"]


def test_a_run_whose_ranks_contradict_its_scores_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.trec"
    path.write_text("1 Q0 a 1 1.0 x\n1 Q0 b 2 2.0 x\n2 Q0 a 1 2.0 x\n2 Q0 b 2 1.0 x\n3 Q0 a 1 1 x\n3 Q0 b 2 1 x\n")
    read = read_run(path)
    assert (read.contradictions, read.ties) == (1, 1)
    assert read.oddities == [
        f"{path}: in 1 of 3 queries the ranks contradict the scores; trec_eval, and we, go by the scores",
        f"{path}: 1 of 3 queries have tied scores; ordered by id, falling",
    ]
    for lines_, said in (("1 Q0 a 1 1 x\n1 Q0 b 2 2 x\n", "contradict"), ("1 Q0 a 1 1 x\n1 Q0 b 2 1 x\n", "tied")):
        path.write_text(lines_)
        [note] = read_run(path).oddities
        assert said in note


SCORES = st.sampled_from([0.5, 1.0, 1.0 + 1e-9, 2.0])  # two of them are one in single precision


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(SCORES, st.sampled_from(["", "0", "1", "2", "3"])), min_size=1, max_size=6))
@example([(2.0, "1"), (1.0, "")])  # the one without a rank says nothing
@example([(2.0, "2"), (1.0, "1"), (1.0, "3")])  # the contradiction may lie behind a tie
def test_a_contradiction_is_a_pair_told_otherwise(tmp_path: Path, hits: list[tuple[float, str]]) -> None:
    path = tmp_path / "a.trec"
    path.write_text("".join(f"1 Q0 d{i} {rank} {score!r} x\n" for i, (score, rank) in enumerate(hits)))
    read, told = read_run(path), [(np.float32(score), int(rank)) for score, rank in hits if rank]
    assert read.contradictions == any(s > t and a > b for s, a in told for t, b in told)
    assert read.ties == (len({np.float32(score) for score, _ in hits}) < len(hits))


def test_single_precision_decides_ties() -> None:
    assert ordered({"a": 1.0 + 1e-9, "b": 1.0}) == ["b", "a"]  # trec_eval keeps floats


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 Q0 d1", "2: the rank 'd1' is no number"),
        ("1 Q0 d1 1 1.0 x y", "2: 7 fields, expected 6"),
        ("1 Q0 d1 1 high x", "2: the score 'high' is no number"),
        ("1 Q0 d1 1 nan x", "2: the score is nan, expected a finite number"),
        ("1 Q0 d1 first 1.0 x", "2: the rank 'first' is no number"),
        ("1 Q0 d0 2 1.0 x", "2: document 'd0' is there twice for query '1'"),
    ],
)
def test_a_bad_run_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "bad.trec"
    path.write_text(f"1 Q0 d0 1 2.0 x\n{line}\n")
    with pytest.raises(DataError, match=f"bad.trec:{said}"):
        read_run(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 0 d1\n", r"1: 3 fields, expected 4 \(query, iteration, document, relevance\)"),
        ("query-id\tcorpus-id\tscore\n1\td1\n", r"2: 2 fields, expected 3 \(query-id, corpus-id, score\)"),
        ("1 0 d1 high\n", "1: the relevance 'high' is no number"),
        ("1 0 d1 1.5\n", "1: the relevance '1.5' is no whole number"),
        ("1 0 d1 1\n1 0 d1 2\n", "2: 1 d1 is judged 1 and 2"),
    ],
)
def test_a_bad_judgement_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "qrels.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match=f"qrels.tsv:{said}"):
        read_qrels(path)


def test_qrels_survive_the_file(tmp_path: Path) -> None:
    qrels = {"1": {"a": 2, "b": -1}, "é": {"漢": 0}}
    write_qrels(tmp_path / "q", qrels)
    assert read_qrels(tmp_path / "q") == qrels
    (tmp_path / "b.tsv").write_text("query-id\tcorpus-id\tscore\n1\ta b\t2\n")
    assert read_qrels(tmp_path / "b.tsv") == {"1": {"a b": 2}}


@pytest.mark.parametrize("bad", ["a b", "a\tb", "", "a\u00a0b"])
def test_ids_with_white_space_are_refused_and_nothing_is_written(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "a.trec"
    path.write_text("old")
    a = ranking({"a": 1.0})
    for what, rankings, tag in (
        ("document id", [a, ranking({bad: 1.0}, "2")], "x"),
        ("query id", [a, ranking({"a": 1.0}, bad)], "x"),
        ("tag", [a], bad),
    ):
        with pytest.raises(DataError, match=r"; write a \.jsonl ranking instead, or rename it$") as caught:
            write_run(path, rankings, tag)
        assert f"the {what} {bad!r} is empty or has white space" in str(caught.value)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.trec"]


def test_files_that_are_not_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none: no such file"):
        read_run(tmp_path / "none")
    with pytest.raises(DataError, match="is a folder"):
        read_run(tmp_path)
    (tmp_path / "latin").write_bytes(b"1 Q0 a 1 1 x\n1 Q0 \xe9 2 1 x\n")
    with pytest.raises(DataError, match="latin:2: not UTF-8"):
        read_run(tmp_path / "latin")
    (tmp_path / "a.gz").write_bytes(b"plain")
    with pytest.raises(DataError, match=r"a\.gz:1: not a whole gzip file"):
        read_run(tmp_path / "a.gz")
    (tmp_path / "b.gz").write_bytes(gzip.compress("".join(f"1 Q0 d{i} 1 {i} x\n" for i in range(99)).encode())[:-9])
    with pytest.raises(DataError, match=r"b\.gz:\d+: not a whole gzip file"):
        read_run(tmp_path / "b.gz")
