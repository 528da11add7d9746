"""The built-in collection: its documents against trees made by hand, its judgements against its documents."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import sysconfig
import zlib
from collections import Counter, defaultdict
from importlib.resources import files
from pathlib import Path

import pytest

from rankpipe.data import Doc
from rankpipe.datasets.pydocs import Extraction, corpus, extract
from rankpipe.datasets.pydocs.files import source_files
from rankpipe.errors import DataError

HOME = files("rankpipe.datasets.pydocs")
MAY_BE_MISSING = 0.03  # share of relevant documents that another Python version may lack; none on 3.11

ARGUMENTS = ", ".join(f"argument{i}" for i in range(9))

TREE = {
    "alpha.py": '''
"""Tools for the first letter of it."""
import nowhere_at_all
if nowhere_at_all.windows:
    def open_door(key, *, wide: bool = False):
        """Open the door with the key."""
else:
    def open_door(key):
        """The other branch is a repetition."""
class Door(Wall):
    """A way through the wall.

    It can be shut:
        by hand.
    """
    def __init__(self, colour="red"):
        """Paint it in that colour."""
    @property
    def is_open(self):
        """Whether one may walk through it."""
    async def close(self): "Close it, wait until it is shut."
    def shut(self):
        """Close it."""
    def _hinge(self):
        """What is private is not a document."""
def undocumented(): pass
''',
    "_pydatetime.py": '"""Not the docstring that wins here."""\ndef now():\n    """What the clock says just now."""\n',
    "datetime.py": '"""Dates and times of the day."""\n',
    "pack/__init__.py": '"""A package that has inner files."""\n',
    "pack/inner.py": f"def f({ARGUMENTS}):\n    'A function of many long arguments.'\n",
    "pack/_hidden.py": '"""A private file is not read."""\n',
    "pack/test/broken.py": "def def def",
    "site-packages/other.py": '"""Somebody else wrote this package here."""\n',
    "python-config.py": '"""This name cannot be imported at all."""\n',
}

DOCS = (
    Doc("alpha", "Tools for the first letter of it.", "module alpha"),
    Doc(
        "alpha.Door",
        "Door(colour='red')\n\nA way through the wall.\n\nIt can be shut:\n    by hand.\n\nPaint it in that colour.",
        "class alpha.Door",
    ),
    Doc("alpha.Door.close", "Close it, wait until it is shut.", "alpha.Door.close(self)"),
    Doc("alpha.Door.is_open", "Whether one may walk through it.", "property alpha.Door.is_open"),
    Doc("alpha.open_door", "Open the door with the key.", "alpha.open_door(key, *, wide=False)"),
    Doc("datetime", "Dates and times of the day.", "module datetime"),
    Doc("datetime.now", "What the clock says just now.", "datetime.now()"),
    Doc("pack", "A package that has inner files.", "module pack"),
    Doc("pack.inner.f", f"f({ARGUMENTS})\n\nA function of many long arguments.", "pack.inner.f(...)"),
)


@pytest.fixture(scope="module")
def docs() -> tuple[Doc, ...]:
    """The documents of the running Python."""
    return tuple(corpus())


@pytest.fixture(scope="module")
def judged() -> dict[str, dict[str, int]]:
    """Question -> document -> grade, as the file has it."""
    header, *rows = HOME.joinpath("qrels", "test.tsv").read_text("utf-8").splitlines()
    assert header == "query-id\tcorpus-id\tscore"
    grades: dict[str, dict[str, int]] = defaultdict(dict)
    for row in rows:
        query, doc, grade = row.split("\t")
        assert doc not in grades[query], f"{query} {doc} is judged twice"
        grades[query][doc] = int(grade)
    return grades


def plant(root: Path, tree: dict[str, str]) -> Path:
    """Write the files in the given order: on most file systems, that is the order in which they are listed."""
    for name, source in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, "utf-8")
    return root


def test_a_small_tree(tmp_path: Path) -> None:
    assert extract(plant(tmp_path, TREE)) == Extraction(DOCS, files=5, short=1, repeated=2)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_disk_does_not_matter(tmp_path: Path, seed: int) -> None:
    names = random.Random(seed).sample(list(TREE), len(TREE))
    assert extract(plant(tmp_path, {n: TREE[n] for n in names})).docs == DOCS


def test_public_files_come_first(tmp_path: Path) -> None:
    modules = [s.module for s in source_files(plant(tmp_path, TREE))]
    assert modules == ["alpha", "datetime", "pack", "pack.inner", "datetime"]


@pytest.mark.parametrize("source", ["x = 1\ny = = 2\n", "x = 1\ny = '\0'\n"])
def test_a_broken_file_is_named(tmp_path: Path, source: str) -> None:
    plant(tmp_path, {"fine.py": "", "broken.py": source})
    with pytest.raises(DataError, match=r"broken\.py:[12]: not Python 3\.\d+ source .*reinstall"):
        list(corpus(tmp_path))


@pytest.mark.parametrize("below", ["", "absent"])
def test_a_folder_without_sources_is_named(tmp_path: Path, below: str) -> None:
    with pytest.raises(DataError, match="no Python source files here; pass the folder"):
        list(corpus(tmp_path / below))


def test_installed_packages_and_the_place_do_not_matter(docs: tuple[Doc, ...], tmp_path: Path) -> None:
    """The same two packages read at another place, with a package installed beside them."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    for package in ("json", "logging"):
        shutil.copytree(stdlib / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    plant(tmp_path, {"site-packages/json.py": '"""Somebody else wrote this package here."""'})
    ours = [d for d in docs if d.id.split(".")[0] in ("json", "logging")]
    assert list(corpus(tmp_path)) == ours


def test_nothing_is_imported_and_twice_is_the_same(docs: tuple[Doc, ...]) -> None:
    """A second extraction, in a process of its own with other hashes, which tells what it has imported on the way."""
    program = (
        "import sys, sysconfig, pathlib, zlib; from rankpipe.datasets.pydocs import corpus;"
        "root = pathlib.Path(sysconfig.get_path('stdlib')); before = set(sys.modules); docs = tuple(corpus(root));"
        "print(sorted(set(sys.modules) - before), zlib.crc32(repr(docs).encode()))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == f"[] {zlib.crc32(repr(docs).encode())}"


def test_ids_titles_and_texts(docs: tuple[Doc, ...]) -> None:
    assert 3500 < len(docs) < 7000
    assert len({d.id for d in docs}) == len(docs)
    assert all(d.id == "".join(d.id.split()) and d.id.isprintable() for d in docs)
    assert all(d.text and d.title for d in docs)
    assert [d.id for d in docs] == sorted(d.id for d in docs)
    assert {"sched", "threading.Timer", "functools.cache", "datetime.date", "decimal.Decimal"} <= {d.id for d in docs}


def test_questions() -> None:
    rows = [json.loads(line) for line in HOME.joinpath("queries.jsonl").read_text("utf-8").splitlines()]
    assert all(set(r) == {"_id", "text"} and r["text"].strip() == r["text"] != "" for r in rows)
    assert [r["_id"] for r in rows] == [f"q{n:02}" for n in range(1, len(rows) + 1)]
    assert len({r["text"] for r in rows}) == len(rows) >= 60


def test_every_question_is_judged_and_answered(docs: tuple[Doc, ...], judged: dict[str, dict[str, int]]) -> None:
    here = {d.id for d in docs}
    rows = [json.loads(line) for line in HOME.joinpath("queries.jsonl").read_text("utf-8").splitlines()]
    assert set(judged) == {r["_id"] for r in rows}
    for query, grades in judged.items():
        assert any(g >= 2 for d, g in grades.items() if d in here), query
        assert {0} < set(grades.values()) <= {0, 1, 2, 3}, query


def test_relevant_documents_exist(docs: tuple[Doc, ...], judged: dict[str, dict[str, int]]) -> None:
    here = {d.id for d in docs}
    relevant = [d for grades in judged.values() for d, g in grades.items() if g >= 1]
    missing = sorted({d for d in relevant if d not in here})
    allowed = 0 if sys.version_info[:2] == (3, 11) else MAY_BE_MISSING * len(relevant)
    assert len(missing) <= allowed, missing


def test_the_readme_counts_what_is_there(judged: dict[str, dict[str, int]]) -> None:
    counts = Counter(g for grades in judged.values() for g in grades.values())
    readme = HOME.joinpath("README.md").read_text("utf-8")
    for grade in range(4):
        assert f"| {grade} | {counts[grade]} |" in readme
