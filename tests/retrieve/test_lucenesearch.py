"""What a Lucene index may be told; without Java."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rankpipe import recipe
from rankpipe.datasets import Dataset
from rankpipe.errors import MissingExtra, RecipeError
from rankpipe.retrieve import shelf
from rankpipe.retrieve.lucene import Lucene
from rankpipe.retrieve.lucenefields import terms
from rankpipe.retrieve.lucenesearch import RM3, Options, Settings
from rankpipe.where import KINDS


def test_rm3_is_a_yes_a_no_or_its_arguments() -> None:
    assert Settings.of({"rm3": True}).rm3 == RM3() == Settings.of({"rm3": {}}).rm3
    assert Settings.of({"rm3": False}).rm3 is Settings.of({}).rm3 is None
    assert Settings.of({"rm3": {"fb_docs": 3}}).rm3 == RM3(fb_docs=3)
    assert Settings.of({"rm3": True, "k1": 1.2}).but({"rm3": False}) == Settings.of({"k1": 1.2})


@pytest.mark.parametrize(("options", "said"), [
    ({"k1": -1.0}, "k1: -1.0"),
    ({"k1": float("nan")}, "k1: nan"),
    ({"b": 1.5}, "b: 1.5; expected 0 to 1"),
    ({"rm3": {"fb_term": 3}}, "no argument 'fb_term'; did you mean fb_terms"),
    ({"rm3": {"fb_terms": 0}}, "1 or more terms"),
    ({"rm3": {"original_query_weight": 2.0}}, "original_query_weight: 2.0; expected 0 to 1"),
    ({"rm3": True, "fields": {"title": 1.0}}, "rm3: expands queries of the contents as a whole"),
    ({"fields": {"title": 0.0}}, "title: 0.0; expected more than 0"),
    ({"fields": {"titel": 1.0}}, "titel; there are contents, title, text"),
    ({"language": "xx"}, "no analyzer 'xx'; there are en, ar"),
    ({"stemmer": "snowball"}, "'snowball' is not one of porter, krovetz, none"),
    ({"language": "de", "stemmer": "none"}, "only English has them to choose, not 'de'"),
    ({"language": "de", "stopwords": False}, "only English has them to choose, not 'de'"),
])  # fmt: skip
def test_what_is_out_of_range_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        Lucene.check(**options)


def test_the_arguments_of_lucene_and_anserini_are_the_same() -> None:
    told = {"k1": 1.2, "rm3": {"fb_docs": 3}, "fields": {"title": 2.0}, "language": "de"}
    assert recipe.check({"use": "anserini", "index": "cacm", **told}) == []
    assert recipe.bind({"use": "lucene", **told}, "", method="build", given=("data", "folder")) == []
    for node in ({"use": "anserini", "index": "cacm"}, {"use": "lucene"}):
        said = recipe.bind({**node, "k1": "much", "stemer": "none"}, "", method="build" if len(node) == 1 else None)
        assert [fault.partition(": ")[2] for fault in said if "missing" not in fault] == [
            "no argument 'stemer'; did you mean stemmer?",
            "k1: 'much' is a str, expected float",
        ]
    assert "no argument 'where'" in recipe.check({"use": "anserini", "index": "cacm", "where": "a == 1"})[0]
    assert recipe.defaults(Options) == {
        "k1": 0.9, "b": 0.4, "rm3": False, "fields": None, "language": "en", "stemmer": "porter", "stopwords": True,
    }  # fmt: skip


def test_all_faults_at_once() -> None:
    with pytest.raises(RecipeError) as refused:
        Lucene.check(k1=-1.0, b=2.0, language="xx")
    assert len(refused.value.faults) == 3


NUMBERS = st.integers() | st.floats(allow_nan=False) | st.sampled_from([2**53, 2**53 + 1, 2.0**53, 1e308, -1e308])


@given(*[NUMBERS | st.text(st.characters(exclude_categories=["Cs"])) | st.booleans()] * 2)
@example(2**53, 2**53 + 1)
@example(0.0, -0.0)
@example(-1.5, -1)
def test_terms_sort_as_values_do(a: float | str, b: float | str) -> None:
    """Those of a kind; by bytes, as Lucene sorts them, which is by code points."""
    [one], [other] = (terms({"a": value}) for value in (a, b))
    assert (one == other) == (KINDS[type(a)] == KINDS[type(b)] and a == b)
    if KINDS[type(a)] == KINDS[type(b)] != "boolean":
        assert (one.encode() < other.encode()) == (a < b)  # type: ignore[operator]


@given(st.text(), st.text(), *[st.text(st.characters(exclude_categories=["Cs"]))] * 2)
def test_terms_of_fields_do_not_mix(name: str, longer: str, a: str, b: str) -> None:
    [one], [other] = terms({name: a}), terms({name + longer: b})
    begin = json.dumps(name) + '"'
    assert one.startswith(begin)
    assert other.startswith(begin) == (not longer)


@pytest.mark.skipif(find_spec("pyserini") is not None, reason="pyserini is here")
def test_without_pyserini_nothing_is_begun(tiny: Dataset, tmp_path: Path) -> None:
    with pytest.raises(MissingExtra, match=r"pip install 'rankpipe\[java\]'"):
        Lucene.build(tiny, tmp_path / "index")
    assert not (tmp_path / "index").exists()
    [fault] = shelf.check({"data": "pydocs", "index": {"use": "lucene"}})
    assert fault == "index: lucene needs 'pyserini', which is not installed: pip install 'rankpipe[java]'"
