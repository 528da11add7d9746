"""Every malformed line is named with its file, its number and what was expected; lenient where nothing is lost."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from rankpipe.data import Doc, Query
from rankpipe.datasets import open_dataset
from rankpipe.datasets.records import DOC_ID, DOC_TEXT, Jsonl, read_queries
from rankpipe.errors import DataError

GOOD = '{"_id": "a", "text": "x"}'


def read(path: Path, *lines: str) -> list[Doc]:
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return list(open_dataset(path).docs())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"_id": "b", "text": "x"', "not JSON"),
        ("b\tx", "not JSON"),
        ('["b", "x"]', "a JSON list, expected an object"),
        ('{"text": "x"}', "no '_id' or 'id' or"),
        ('{"_id": "b"}', "no 'text' or 'contents' or"),
        ('{"_id": "b", "title": "only"}', "no 'text'"),
        ('{"_id": "", "text": "x"}', "'_id' is empty"),
        ('{"_id": null, "text": "x"}', "'_id' is null, expected a string or a whole number"),
        ('{"_id": 1.5, "text": "x"}', "'_id' is the float '1.5'"),
        ('{"_id": true, "text": "x"}', "'_id' is the bool"),
        ('{"_id": "b", "text": null}', "'text' is null, expected a string (\"\" where there is no text)"),
        ('{"_id": "b", "text": ["x"]}', "'text' is the list"),
        ('{"_id": "b", "text": "x", "title": 7}', "'title' is the int '7'"),
        ('{"_id": "b", "text": "\\ud83d"}', "half a character"),
        ('{"_id": ' + "9" * 5000 + ', "text": "x"}', "cannot be read"),
        ('{"_id": "b", "text": ' + "[" * 200_000 + "}", "JSON"),
    ],
)
def test_malformed_document_says_file_and_line(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "c.jsonl"
    with pytest.raises(DataError) as error:
        read(path, GOOD, line)
    assert str(error.value).startswith(f"{path}:2: ")
    assert said in str(error.value)


def test_malformed_first_line_is_found_on_opening(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"name": "a"}\n')
    with pytest.raises(DataError, match=r"c\.jsonl:1: no '_id'.*it has 'name'"):
        open_dataset(tmp_path / "c.jsonl")


def test_doubled_id_names_both_lines(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"c\.jsonl:4: the id 'a' is there already, at .*c\.jsonl:1;"):
        read(tmp_path / "c.jsonl", GOOD, '{"_id": "b", "text": ""}', "", GOOD)


def test_number_and_its_digits_are_the_same_id(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the id '7' is there already"):
        read(tmp_path / "c.jsonl", '{"_id": 7, "text": "x"}', '{"_id": "7", "text": "y"}')


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_empty_corpus(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.jsonl").write_text(content)
    with pytest.raises(DataError, match=r"c\.jsonl: no documents in it"):
        open_dataset(tmp_path / "c.jsonl")


def test_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_bytes(GOOD.encode() + b'\n{"_id": "b", "text": "\xe9"}\n')
    with pytest.raises(DataError, match=r"c\.jsonl:2: not UTF-8"):
        list(open_dataset(tmp_path / "c.jsonl").docs())


def test_torn_gzip(tmp_path: Path) -> None:
    whole = gzip.compress("".join(f'{{"_id": {i}, "text": "text number {i}"}}\n' for i in range(5000)).encode())
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    data = open_dataset(path)
    for read_all in (lambda: list(data.docs()), lambda: data.checksum, lambda: data.count):
        with pytest.raises(DataError, match="not a whole gzip file"):
            read_all()


@pytest.mark.parametrize("id_name", DOC_ID)
@pytest.mark.parametrize("text_name", DOC_TEXT)
def test_accepted_names(tmp_path: Path, id_name: str, text_name: str) -> None:
    line = json.dumps({"url": "u", id_name: "a", text_name: "x", "title": "t"})
    assert read(tmp_path / "c.jsonl", line) == [Doc("a", "x", "t", {"url": "u"})]


def test_first_name_of_the_table_counts(tmp_path: Path) -> None:
    line = '{"contents": "t\\nx", "text": "x", "docid": "later", "id": "first"}'
    assert read(tmp_path / "c.jsonl", line) == [Doc("first", "x", fields={"contents": "t\nx", "docid": "later"})]


def test_metadata_and_all_other_fields_are_kept(tmp_path: Path) -> None:
    lines = [
        '{"_id": "a", "text": "x", "metadata": {"year": 2019, "by": {"me": "Li"}, "no": null}, "tags": ["p", 1, true]}',
        '{"_id": "b", "text": "x", "metadata": null, "title": "t"}',
        '{"_id": "c", "text": "x", "metadata": "2019"}',
    ]
    first, *others = read(tmp_path / "c.jsonl", *lines)
    assert first.fields == {"tags": ["p", 1, True], "year": 2019, "by": {"me": "Li"}, "no": None}
    assert others == [Doc("b", "x", "t"), Doc("c", "x", fields={"metadata": "2019"})]
    twice = '{"_id": "a", "text": "x", "metadata": {"url": "u"}, "url": "v"}'
    with pytest.raises(DataError, match=r"c.jsonl:1: 'url' is in 'metadata' and beside it; leave one of them out"):
        read(tmp_path / "c.jsonl", twice)


def test_kept_as_they_are(tmp_path: Path) -> None:
    docs = [
        Doc("with space", "a\u2028b\r\nc", " t "),
        Doc("naïve/日本 ", "", "empty text"),
        Doc("123456789012345678901234567890", "", ""),
        Doc("big", "x" * 1_000_000, ""),
    ]
    lines = [json.dumps({"_id": d.id, "title": d.title, "text": d.text}, ensure_ascii=False) for d in docs]
    lines[2] = '{"_id": 123456789012345678901234567890, "title": null, "text": ""}'
    assert read(tmp_path / "c.jsonl", *lines) == docs


def test_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert [d.id for d in open_dataset(tmp_path / "c.jsonl").docs()] == ["a"]


def test_packed_is_the_same_as_unpacked(tiny_path: Path, tmp_path: Path) -> None:
    plain, packed = tiny_path / "corpus.jsonl", tmp_path / "corpus.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert list(Jsonl(packed).docs()) == list(Jsonl(plain).docs())
    assert Jsonl(packed).checksum() == Jsonl(plain).checksum()
    assert Jsonl(packed).count == Jsonl(plain).count == 20


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"_id": "b", "text": " "}', "query 'b' has an empty text"),
        ('{"text": "x"}', "no '_id'"),
        ('{"_id": "b", "text": null}', "'text' is null"),
        ('{"_id": "a", "text": "y"}', "the id 'a' is there already"),
    ],
)
def test_malformed_query(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "q.jsonl").write_text(f"{GOOD}\n{line}\n")
    with pytest.raises(DataError, match=rf"q\.jsonl:2: {said}"):
        read_queries(tmp_path / "q.jsonl")


def test_query_names(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"qid": 3, "query": "x"}\n{"query_id": "b", "question": "y"}\n')
    assert read_queries(tmp_path / "q.jsonl") == (Query("3", "x"), Query("b", "y"))
