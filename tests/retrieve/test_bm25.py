"""BM25 equals its formula and bm25s's own index; odd input is answered, counted or refused."""

import math
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import bm25s
import pytest
from bm25s.stopwords import STOPWORDS_EN

from rankpipe.data import Doc, Query, Ranking
from rankpipe.datasets import Dataset, open_dataset
from rankpipe.datasets.dataset import Held
from rankpipe.errors import ArtefactError, DataError, DiskError, RecipeError
from rankpipe.retrieve import bm25
from rankpipe.retrieve.bm25 import BM25
from rankpipe.retrieve.topk import Scorer
from rankpipe.retrieve.words import LUCENE, Words
from rankpipe.trec import to_run
from tests.retrieve.fakes import Deadly, few_files, file_size_limit


def ranked(ranking: Ranking) -> dict[str, float]:
    return {hit.doc.id: hit.score for hit in ranking.hits}


def close(a: dict[str, float], b: dict[str, float]) -> bool:
    return list(a) == list(b) and all(math.isclose(a[i], b[i], rel_tol=1e-5) for i in a)


def test_equals_the_formula(tiny: Dataset, tmp_path: Path) -> None:
    index = BM25.build(tiny, tmp_path, k1=1.2, b=0.75)
    words = Words()
    texts = {d.id: words(d.contents) for d in tiny.docs()}
    mean = sum(map(len, texts.values())) / len(texts)
    for ranking in index(tiny.queries):
        truth = dict.fromkeys(sorted(texts, reverse=True), 0.0)
        for word in words(ranking.query.text):
            df = sum(word in text for text in texts.values())
            idf = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
            for doc, text in texts.items():
                tf = Counter(text)[word]
                truth[doc] += idf * tf / (tf + 1.2 * (0.25 + 0.75 * len(text) / mean))
        best = sorted((i for i, s in truth.items() if s > 0), key=lambda i: truth[i], reverse=True)
        assert close(ranked(ranking), {i: truth[i] for i in best})
        assert ranking.hits


def test_english_stop_words_are_those_of_bm25s() -> None:
    assert frozenset(LUCENE.split()) == frozenset(STOPWORDS_EN)


@pytest.mark.parametrize("method", ["lucene", "robertson", "atire"])
@pytest.mark.parametrize(("stemmer", "stopwords"), [("english", "english"), ("none", "none")])
def test_equals_bm25s(method: str, stemmer: str, stopwords: str, tiny: Dataset, tmp_path: Path) -> None:
    index = BM25.build(tiny, tmp_path, stemmer=stemmer, stopwords=stopwords, method=method)  # type: ignore[arg-type]
    words, docs = Words(stemmer, stopwords), list(tiny.docs())
    theirs = bm25s.BM25(k1=0.9, b=0.4, method=method)
    theirs.index([words(d.contents) for d in docs], show_progress=False)
    for ranking in index(tiny.queries):
        terms = [w for w in words(ranking.query.text) if w in theirs.vocab_dict]
        scores = theirs.get_scores(terms)
        assert ranked(ranking).keys() == {d.id for d, s in zip(docs, scores, strict=True) if s > 0}
        for d, s in zip(docs, scores, strict=True):
            assert math.isclose(ranked(ranking).get(d.id, 0.0), s, rel_tol=1e-5)


@pytest.mark.parametrize("method", ["lucene", "robertson", "atire"])
def test_a_search_can_weigh_otherwise(method: str, tiny: Dataset, tmp_path: Path) -> None:
    built = BM25.build(tiny, tmp_path / "built", k1=1.2, b=0.75, method=method)  # type: ignore[arg-type]
    other = BM25.build(tiny, tmp_path / "other", method=method)  # type: ignore[arg-type]
    asked = BM25(tmp_path / "other", k1=1.2, b=0.75)
    same, before = to_run(built(tiny.queries)), to_run(other(tiny.queries))
    assert to_run(asked(tiny.queries)) == same != before
    assert to_run(BM25(tmp_path / "other", k1=0.9)(tiny.queries)) == before
    with pytest.raises(RecipeError) as caught:
        BM25(tmp_path / "other", k1=float("inf"), b=-1)
    assert caught.value.faults == ["k1: inf; expected 0 or more", "b: -1; expected 0 to 1"]


def test_nothing_is_found_where_nothing_is_left(tmp_path: Path) -> None:
    for method in ("lucene", "robertson", "atire"):
        index = BM25.build(Dataset.of([Doc("a", "tea")]), tmp_path / method, method=method)  # type: ignore[arg-type]
        index.delete(["a"])
        assert not index.search("tea").hits


def test_a_delete_of_nothing_is_no_batch(tmp_path: Path) -> None:
    index = BM25.build(Dataset.of([Doc("a", "tea"), Doc("b", "tea")]), str(tmp_path))  # type: ignore[arg-type]
    before = (tmp_path / "manifest.json").read_bytes()
    assert index.delete(["x", "y"]).absent == ("x", "y")
    assert (tmp_path / "manifest.json").read_bytes() == before
    assert (done := index.delete(["x", "a"])).deleted == 1
    assert done.absent == ("x",)


def test_many_segments_are_opened_though_few_files_are_allowed(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    index = BM25.build(Dataset.of([Doc("a", "tea")]), tmp_path)
    for i in range(6):
        index.add([Doc(f"d{i}", "tea leaves", fields={"n": i})])
    code = f"""
import resource
from pathlib import Path
from rankpipe.errors import DiskError
from rankpipe.retrieve.bm25 import BM25
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (60, hard))
assert len(BM25(Path({str(tmp_path)!r})).search("tea").hits) == 7
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 61))
try:
    BM25(Path({str(tmp_path)!r}))
except DiskError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "7 segments: needs" in done.stdout, done.stderr
    assert "open files, and this process may have 61" in done.stdout


def test_many_segments_are_made_and_merged_though_few_files_are_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BM25, "portion", 1)
    with few_files(60):
        index = BM25.build(Dataset.of([Doc(f"d{i}", "tea") for i in range(40)]), tmp_path)
    assert (len(index), len(index.segments)) == (40, 1)


def test_ties_at_the_cut_go_to_the_higher_id(tmp_path: Path) -> None:
    docs = [Doc(i, "same words here") for i in ("b", "d", "a", "c", "e")] + [Doc("z", "other"), Doc("y", "same")]
    index = BM25.build(Dataset.of(docs), tmp_path)
    for k in range(1, 8):
        assert list(ranked(BM25(tmp_path, k=k).search("same"))) == ["y", "e", "d", "c", "b", "a"][:k]
    assert index.k == 1000


ODD = [
    Doc("with space", "the quick brown fox"),
    Doc("日本 é", "naïve café 東京"),
    Doc("empty", ""),
    Doc("titled", "", "Only a fox title"),
    Doc("long", "needle " + "haystack " * 120_000),
]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("", []),
        (" \n\t", []),
        ("!?", []),
        ("zebra", []),
        ("the and of", []),  # stop words only
        ("FOXES", ["titled", "with space"]),  # case, plural
        ("café", ["日本 é"]),
        ("東京", ["日本 é"]),
        ("needle", ["long"]),
        ("fox zebra \x00 \ud83d " + "word " * 10_000, ["titled", "with space"]),
    ],
)
def test_odd_input(asked: str, found: list[str], odd: BM25) -> None:
    assert sorted(ranked(odd.search(asked))) == found


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> BM25:
    return BM25.build(Dataset.of(ODD), tmp_path_factory.mktemp("odd"))


def test_hits_have_their_documents(odd: BM25) -> None:
    assert {h.doc for h in odd.search("fox").hits} == {ODD[0], ODD[3]}
    assert [step.stage for step in odd.search("fox").steps] == ["BM25"]
    counted = {"documents": 5, "empty_texts": 1, "ids_with_white_space": 2}
    assert odd.manifest.facts == counted | {
        "words": 120_010, "postings": 11, "dead": 0, "segments": 1
    }  # fmt: skip


def test_a_corpus_without_a_word(tmp_path: Path) -> None:
    index = BM25.build(Dataset.of([Doc("a", ""), Doc("b", "?")]), tmp_path)
    assert index.search("anything").hits == ()


@pytest.mark.parametrize(
    ("docs", "said"),
    [
        ([], "no documents"),
        ([Doc("a", "x"), Doc("b", "y"), Doc("a", "z")], r"^docs\[2\]: the id 'a' is there already, at docs\[0\]"),
    ],
)
def test_refused_corpora_leave_nothing(docs: list[Doc], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        BM25.build(Dataset.of(docs), tmp_path)
    with pytest.raises(ArtefactError, match="nothing built here"):
        BM25(tmp_path)


@pytest.mark.parametrize(
    ("doc", "said"),
    [
        (Doc(7, "seven"), r"document 1 \(7\): its id is a int"),  # type: ignore[arg-type]
        (Doc("a", None), r"document 1 \('a'\): its text is a NoneType, expected a str"),  # type: ignore[arg-type]
        (Doc("a", "b", b"c"), r"document 1 \('a'\): its title is a bytes"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_text_is_refused(doc: Doc, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        BM25.build(Dataset.of([doc]), tmp_path)


def test_of_a_doubled_id_both_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "dup.jsonl"
    path.write_text("\n".join(f'{{"_id": "{i}", "text": "{i}"}}\n' for i in "xyxz"))
    with pytest.raises(DataError, match=r"dup\.jsonl:5: the id 'x' is there already, at .*dup\.jsonl:1; ids must be"):
        BM25.build(open_dataset(path), tmp_path / "index")


def test_bad_arguments_are_all_named(tiny: Dataset, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        BM25.build(tiny, tmp_path, k1=-1, b=2, method="bm25+")  # type: ignore[arg-type]
    assert len(caught.value.faults) == 3
    with pytest.raises(RecipeError, match="no algorithm 'englsh'; did you mean english"):
        BM25.build(tiny, tmp_path, stemmer="englsh")
    with pytest.raises(RecipeError, match="no list 'klingon'"):
        BM25.build(tiny, tmp_path, stopwords="klingon")
    BM25.build(tiny, tmp_path)
    with pytest.raises(RecipeError, match="k: 0 hits"):
        BM25(tmp_path, k=0)


@pytest.mark.parametrize("limit", [500, 2500, 4500, 7000])  # spill, texts, postings, vocabulary
def test_a_full_disk_leaves_the_old_index(limit: int, tiny: Dataset, tmp_path: Path) -> None:
    old = BM25.build(tiny, tmp_path)
    docs = Dataset.of([Doc(f"{i:02}", " ".join(f"longish{i}and{n}" for n in range(20))) for i in range(30)])
    with file_size_limit(limit), pytest.raises(DiskError, match="no space left; nothing was changed"):
        BM25.build(docs, tmp_path)
    assert [BM25(tmp_path).run(tiny.queries)] == [old.run(tiny.queries)]


def test_lies_on_disk_and_says_nothing(tiny: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    index = BM25.build(tiny, tmp_path)
    list(index(tiny.queries))
    assert capfd.readouterr() == ("", "")
    assert {p.name for p in (index.manifest.path / "000000").iterdir()} == {
        "docs.jsonl", "docs.npy", "facts.json", "ids.bin", "ids.npy", "lengths.npy", "offsets.npy", "precedence.npy",
        "starts.npy", "terms.bin", "terms.npy", "tops.npy", "values.npy",
    }  # fmt: skip


BUILD_IN_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from rankpipe.data import Doc
from rankpipe.retrieve import bm25
from rankpipe.retrieve.bm25 import BM25
from rankpipe.store import Data

class Endless:
    name, count, data = "endless", None, Data("endless", "0")

    def docs(self):
        chance = np.random.default_rng(0)
        for i in range(5000):
            yield Doc(str(i), " ".join("x" * 70 + str(n) for n in chance.integers(0, 3000, 1000)))

resource.setrlimit(resource.RLIMIT_DATA, (300 << 20, 300 << 20))
BM25.build(Endless(), Path(sys.argv[1]), stemmer="none")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory by RLIMIT_DATA")
def test_a_corpus_larger_than_memory(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", BUILD_IN_LITTLE_MEMORY, tmp_path], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    index = BM25(tmp_path, k=5000)
    assert (index.manifest.path / "000000" / "docs.jsonl").stat().st_size > 350 << 20
    word = "x" * 70 + "17"
    assert {h.doc for h in index.search(word).hits} == {doc for doc in index.documents() if word in doc.text.split()}


@pytest.mark.parametrize(("name", "ndcg"), [("scifact", 0.6762), ("nfcorpus", 0.3177)])
def test_real_collections(name: str, ndcg: float, data_root: Path, tmp_path: Path) -> None:
    import ir_measures

    data = open_dataset(data_root / name)
    index = BM25.build(data, tmp_path)
    found = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], data.qrels, to_run(index(data.queries)))
    assert math.isclose(found[ir_measures.nDCG @ 10], ndcg, abs_tol=5e-4)


def test_queries_of_a_batch_do_not_touch_each_other(tiny: Dataset, tmp_path: Path) -> None:
    index = BM25.build(tiny, tmp_path)
    together = index.run([*tiny.queries, Query("none", "")])
    assert together == [index.run([q])[0] for q in (*tiny.queries, Query("none", ""))]


@pytest.mark.parametrize("text", ["fox number{} {}", ""])
def test_a_killed_build_goes_on(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without counting the words again that were saved, and to the same bytes."""
    monkeypatch.setattr(bm25, "SHARD", 50)
    docs = tuple(Doc(f"d{i}", text.format(i % 77, "dogs " * (i % 9)), fields={"n": i % 5}) for i in range(230))
    child = os.fork()
    if not child:
        BM25.build(Dataset("docs", Deadly(docs)), tmp_path / "index")
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    counted, count = list[str](), Words.__call__
    monkeypatch.setattr(Words, "__call__", lambda self, said: counted.append(said) or count(self, said))  # type: ignore[func-returns-value]
    index = BM25.build(Dataset("docs", Held(docs)), tmp_path / "index")
    assert counted == [d.contents for d in docs[150:]]
    whole = BM25.build(Dataset("docs", Held(docs)), tmp_path / "whole")
    assert index.manifest.files == whole.manifest.files


@pytest.mark.parametrize("how", ["numpy", "numba"])
def test_the_first_hits_are_the_first_of_all(
    how: str, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real collection, however few are asked for: no bound of what a term adds is too low."""
    if how == "numba":
        pytest.importorskip("numba")
    monkeypatch.setattr(Scorer, "candidates", {"numpy": Scorer.by_numpy, "numba": Scorer.compiled}[how])
    data = open_dataset(data_root / "scifact")
    every = BM25.build(data, tmp_path)
    every.k = len(every)
    whole = [[(h.doc.id, h.score) for h in r.hits] for r in every.run(data.queries)]
    for k in (1, 10, 100):
        found = BM25(tmp_path, k).run(data.queries)
        assert [[(h.doc.id, h.score) for h in r.hits] for r in found] == [hits[:k] for hits in whole]
