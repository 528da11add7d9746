"""What a Lucene index may be told; without Java."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from rankpipe.datasets import Dataset
from rankpipe.errors import MissingExtra, RecipeError
from rankpipe.retrieve import shelf
from rankpipe.retrieve.lucene import Lucene
from rankpipe.retrieve.lucenesearch import RM3, Settings


def test_rm3_is_a_yes_a_no_or_its_arguments() -> None:
    assert Settings.of({"rm3": True}).rm3 == RM3() == Settings.of({"rm3": {}}).rm3
    assert Settings.of({"rm3": False}).rm3 is Settings.of({}).rm3 is None
    assert Settings.of({"rm3": {"fb_docs": 3}}).rm3 == RM3(fb_docs=3)
    assert Settings.of({"rm3": True, "k1": 1.2}).but({"rm3": False}) == Settings(k1=1.2)


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


def test_all_faults_at_once() -> None:
    with pytest.raises(RecipeError) as refused:
        Lucene.check(k1=-1.0, b=2.0, language="xx")
    assert len(refused.value.faults) == 3


@pytest.mark.skipif(find_spec("pyserini") is not None, reason="pyserini is here")
def test_without_pyserini_nothing_is_begun(tiny: Dataset, tmp_path: Path) -> None:
    with pytest.raises(MissingExtra, match=r"pip install 'rankpipe\[java\]'"):
        Lucene.build(tiny, tmp_path / "index")
    assert not (tmp_path / "index").exists()
    [fault] = shelf.check({"data": "pydocs", "index": {"use": "lucene"}})
    assert fault == "index: lucene needs 'pyserini', which is not installed: pip install 'rankpipe[java]'"
