"""The inverted index equals one made with dictionaries, however small the blocks, and so does one made of several."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankpipe.retrieve.postings import Postings, Spill, merge

Counts = dict[str, int]
DOCUMENTS = st.lists(st.dictionaries(st.text("abcé🙂", max_size=2), st.integers(1, 300)), min_size=1)


def inverted(documents: list[Counts], block: int, folder: Path) -> Postings:
    spill = Spill(folder / "spill.bin", block=block)
    spill.fill(iter(documents))
    spill.invert(folder)
    return Postings(folder)


def told(made: Postings) -> dict[str, dict[int, int]]:
    assert list(made.terms) == sorted(made.terms)
    found = {}
    for number, term in enumerate(made.terms):
        lies = made.of(number)
        assert made.terms.find(term) == number
        assert made.tops[number] == max(made.values[lies])
        assert (np.diff(made.docs[lies]) > 0).all()
        found[term] = dict(zip(made.docs[lies].tolist(), made.values[lies].tolist(), strict=True))
    return found


def truth(documents: list[Counts]) -> dict[str, dict[int, int]]:
    terms = sorted({t for d in documents for t in d})
    return {t: {i: d[t] for i, d in enumerate(documents) if t in d} for t in terms}


@given(DOCUMENTS, st.integers(1, 7))
def test_equals_a_dictionary(documents: list[Counts], block: int) -> None:
    with TemporaryDirectory() as folder:
        made = inverted(documents, block, Path(folder))
        assert told(made) == truth(documents)
        assert {t: f for b in made.blocks(block) for t, f in [(0, len(b[0]))]} or not made.docs.size
        assert not (Path(folder) / "spill.bin").exists()


@given(st.lists(st.lists(st.tuples(st.booleans(), st.dictionaries(st.text("abc", max_size=2), st.integers(1, 300)))),
                min_size=1, max_size=4))  # fmt: skip
def test_merging_equals_building_from_what_is_left(parts: list[list[tuple[bool, Counts]]]) -> None:
    with TemporaryDirectory() as name:
        folder, made, start = Path(name), [], 0
        for i, part in enumerate(parts):
            (folder / str(i)).mkdir()
            alive = np.array([a for a, _ in part], bool)
            places = np.where(alive, start + np.cumsum(alive) - 1, -1).astype(np.int64)
            made.append((inverted([d for _, d in part], 3, folder / str(i)), places))
            start += int(alive.sum())
        merge(made, folder)
        assert told(Postings(folder)) == truth([d for part in parts for a, d in part if a])


@pytest.mark.parametrize(("most", "kind"), [(255, np.uint8), (256, np.uint16), (70_000, np.uint32)])
def test_counts_are_as_narrow_as_they_can(most: int, kind: type, tmp_path: Path) -> None:
    made = inverted([{"a": 1, "b": most}], 10, tmp_path)
    assert made.values.dtype == kind
    assert told(made) == {"a": {0: 1}, "b": {0: most}}


@pytest.mark.parametrize("size", [0, 1])
def test_no_words_at_all(size: int, tmp_path: Path) -> None:
    made = inverted([{}] * size, 10, tmp_path)
    assert made.starts.tolist() == [0]
    assert len(made.docs) == len(made.values) == len(made.terms) == 0
