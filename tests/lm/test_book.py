"""A file that is damaged, foreign, full or held by somebody else says so, and what helps."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from rankpipe.errors import ArtefactError, DiskError
from rankpipe.lm.book import Book, Row


def written(path: Path, n: int = 300) -> Path:
    book = Book(path, read_only=False)
    book.write([Row(f"{i:064d}", "m", "complete", {"text": f"{i} " * 50}) for i in range(n)])
    book.close()
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing is left beside it
    return path


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(statement)


def read_all(path: Path) -> int:
    return len(Book(path, read_only=True).read([f"{i:064d}" for i in range(300)]))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a file?#%.sqlite")
    assert read_all(path) == 300
    book = Book(path, read_only=False)
    row = Row("k", "m", "count", 3)
    book.write([row, row._replace(answer=4)])
    assert book.read(["k", "k", "none"]) == {"k": 3}
    book.write([row._replace(answer=5)])
    assert book.read(["k"]) == {"k": 3}
    book.write([row._replace(answer=5)], again=True)
    assert book.read(["k"]) == {"k": 5}
    assert [book.size("m", "count"), book.size("m", "complete"), book.size("n", "count")] == [1, 300, 0]
    assert book.read([]) == {}
    book.write([])


def test_there_is_no_file_before_there_is_something_in_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.sqlite"
    book, other = Book(path, read_only=False), Book(path, read_only=False)
    assert (book.read(["k"]), book.size("m", "count")) == ({}, 0)
    book.close()
    assert not path.parent.exists()
    book.write([Row("k", "m", "count", 3)])
    assert (other.read(["k"]), other.size("m", "count")) == ({"k": 3}, 1)


def test_where_it_could_not_be_written_is_said_at_once() -> None:
    with pytest.raises(DiskError, match=r"/dev/null/a\.sqlite: cannot be written"):
        Book(Path("/dev/null/a.sqlite"), read_only=False)


def overwrite(at: int, size: int) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        with open(path, "r+b") as f:
            f.seek(at)
            f.write(b"\xff" * size)

    return act


@pytest.mark.parametrize(
    "damage",
    [
        overwrite(0, 100),
        overwrite(4096, 60_000),
        lambda path: path.write_bytes(path.read_bytes()[:20_000]),
        lambda path: path.write_text("these are the answers\n" * 500),
        lambda path: change(path, "UPDATE answers SET answer = replace(answer, '7', '8')"),
        lambda path: change(path, "UPDATE answers SET answer = 'null'"),
    ],
)
def test_a_damaged_file_is_named_with_the_cure(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = written(tmp_path / "c.sqlite")
    damage(path)
    with pytest.raises(ArtefactError, match=r"c\.sqlite: .*damaged.*bring back a copy"):
        read_all(path)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("PRAGMA application_id = 7", r"c\.sqlite: another program's SQLite file; name another path"),
        ("PRAGMA user_version = 99", r"c\.sqlite: format 99, this version reads 1; name another path"),
    ],
)
def test_a_foreign_file_is_left_alone(tmp_path: Path, statement: str, said: str) -> None:
    path = written(tmp_path / "c.sqlite")
    change(path, statement)
    before = path.read_bytes()
    for read_only in (True, False):
        with pytest.raises(ArtefactError, match=said):
            Book(path, read_only=read_only)
    assert path.read_bytes() == before


def test_a_browsers_history_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "places.sqlite"
    change(path, "CREATE TABLE pages (url TEXT)")
    with pytest.raises(ArtefactError, match="another program's SQLite file"):
        Book(path, read_only=False)


def test_an_empty_file(tmp_path: Path) -> None:
    """As a writer leaves it that was killed at once: a new book, but nothing to replay."""
    path = tmp_path / "c.sqlite"
    path.touch()
    with pytest.raises(ArtefactError, match="nothing in it to replay"):
        Book(path, read_only=True)
    assert Book(path, read_only=False).read(["k"]) == {}


def test_reading_changes_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "c.sqlite")
    before = path.read_bytes()
    book = Book(path, read_only=True)
    assert len(book.read([f"{5:064d}"])) == 1
    with pytest.raises(DiskError, match="readonly"):
        book.write([Row("k", "m", "count", 3)])
    book._open.close()
    assert path.read_bytes() == before


def test_a_place_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="unable to open database file"):
        Book(tmp_path, read_only=False)


def test_a_full_disk(tmp_path: Path) -> None:
    path = written(tmp_path / "c.sqlite")
    book = Book(path, read_only=False)
    book._open.execute("PRAGMA max_page_count = 1")
    with pytest.raises(DiskError, match=r"disk is full.*what is in it is unchanged"):
        book.write([Row(f"k{i}", "m", "complete", "x" * 9000) for i in range(50)])
    assert book.read([f"k{i}" for i in range(50)]) == {}
    assert read_all(path) == 300


def test_a_file_that_is_held_too_long(tmp_path: Path) -> None:
    path = written(tmp_path / "c.sqlite")
    book = Book(path, read_only=False)
    book._open.execute("PRAGMA busy_timeout = 50")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert len(book.read([f"{5:064d}"])) == 1  # readers are not in its way
        with pytest.raises(DiskError, match="database is locked"):
            book.write([Row("k", "m", "count", 3)])
        other.execute("COMMIT")
    book.write([Row("k", "m", "count", 3)])
    assert book.read(["k"]) == {"k": 3}
