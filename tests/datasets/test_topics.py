"""Topics in three formats, read alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankpipe.data import Query
from rankpipe.datasets import open_files
from rankpipe.datasets.topics import read_topics
from rankpipe.errors import DataError

CLASSIC = """
<top>
<num> Number: 301
<title> International Organized Crime

<desc> Description:
Identify organizations that participate in crime.

<narr> Narrative:
A relevant document must name <b>one</b>.
</top>

<top lang="en">
<num>051</num>
<title>Topic:  Airbus
  Subsidies</title>
</top>
"""


def read(tmp_path: Path, text: str) -> tuple[Query, ...]:
    (tmp_path / "topics").write_text(text, "utf-8")
    return read_topics(tmp_path / "topics")


def test_classic_trec(tmp_path: Path) -> None:
    assert read(tmp_path, CLASSIC) == (Query("301", "International Organized Crime"), Query("051", "Airbus Subsidies"))


def test_tsv_and_json_lines(tmp_path: Path) -> None:
    expected = (Query("2", "Androgen receptor define"), Query("q b", "tab\tinside"))
    assert read(tmp_path, "2\t Androgen receptor define\n\nq b\ttab\tinside\n") == expected
    assert read(tmp_path, '{"qid": 2, "query": "Androgen receptor define"}\n') == expected[:1]


words = st.lists(st.text("abcé<>&:1 ", min_size=1).filter(str.strip), min_size=1, max_size=4)


@given(words)
def test_classic_round_trip(tmp_path_factory: pytest.TempPathFactory, titles: list[str]) -> None:
    topics = "".join(f"<top>\n<num> Number: {n}\n<title> {t}\n<desc> x\n</top>\n" for n, t in enumerate(titles))
    found = read(tmp_path_factory.mktemp("topics"), topics)
    assert found == tuple(Query(str(n), " ".join(t.split())) for n, t in enumerate(titles))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "topics: no queries in it"),
        ("1\tx\nno tab here\n", "topics:2: no query id and text with a tab between"),
        ("1\tx\n\tno id\n", "topics:2: no query id"),
        ("1\t \n", "topics:1: query '1' has an empty text"),
        ("1\tx\n1\ty\n", "topics:2: the id '1' is there already, at .*topics:1"),
        ('{"qid": 1}\n', "topics:1: no 'text' or 'query'"),
        ("<top>\n<num> 1\n<title> x\n", "topics:1: this <top> has no </top>"),
        ("<top>\n<num> 1\n<top>\n", "topics:3: <top> inside the topic of .*topics:1"),
        ("<top>\n<title> x\n</top>\n", "topics:1: the topic has no <num>"),
        ("<top>\n<num> 7\n<desc> only\n</top>\n", "topics:1: query '7' has an empty text"),
        ('<topics>\n<topic number="1">\n', "topics:1: '<topics>' outside <top>"),
    ],
)
def test_malformed(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(tmp_path, text)


def test_open_files(tmp_path: Path, tiny_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("q1\twhat causes tides\n")
    (tmp_path / "j.qrels").write_text("q1 0 tide-1 2\n")
    data = open_files(corpus=tiny_path / "corpus.jsonl", queries=tmp_path / "t.tsv", qrels=tmp_path / "j.qrels")
    assert (data.name, data.count, data.queries) == ("corpus", 20, (Query("q1", "what causes tides"),))
    assert data.qrels == {"q1": {"tide-1": 2}}


def test_open_files_without_corpus(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("q1\tx\n")
    data = open_files(queries=tmp_path / "t.tsv", name="mine")
    assert (data.name, data.count) == ("mine", None)
    with pytest.raises(DataError, match="mine: has no documents; open it with its corpus"):
        list(data.docs())
    with pytest.raises(DataError, match="no files"):
        open_files()
