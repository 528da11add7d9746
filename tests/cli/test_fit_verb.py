"""fit as a user types it: what is learned is kept, and reranks."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from rankpipe import store
from rankpipe.cli import app, fit, rerank, show
from rankpipe.datasets import open_dataset, rankings
from rankpipe.measure import evaluate
from rankpipe.rerank.ltr import LearnedRanker
from rankpipe.trec import ordered, read_run

VERBS = (fit, rerank)  # importing them registers their verbs
LEARNER = ("--set", "learner={use: lambdamart, trees: 20, min_leaf: 1}")
Rankpipe = Callable[..., Result]


@pytest.fixture
def rankpipe(tmp_path: Path, tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rankpipe:
    """The command, in this process, beside a run of the tiny collection that knows nothing: nine documents by id."""
    pytest.importorskip("lightgbm")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(show, "manner", show.Manner())
    data = open_dataset(tiny_path)
    ids = sorted(doc.id for doc in data.docs())
    with open("a.trec", "w") as f:
        for query in data.queries:
            docs = sorted({*ids[:5], *data.qrels[query.id]})
            f.writelines(f"{query.id} Q0 {doc} {i} {-i} x\n" for i, doc in enumerate(docs, 1))

    def run(*words: object, code: int = 0) -> Result:
        done = CliRunner().invoke(app, [*map(str, words)])
        assert done.exit_code == code, (words, done.output)
        return done

    return run


def test_learn_and_rerank(rankpipe: Rankpipe, tiny_path: Path) -> None:
    said = rankpipe("fit", "a.trec", "--data", tiny_path, *LEARNER, "--depth", 6, "--out", "learned")
    assert f"rankpipe rerank RUN --data {tiny_path} --use ltr --set folder=learned" in " ".join(said.stderr.split())
    assert "covered" in said.stdout
    manifest = store.read_manifest(Path("learned"))
    assert not store.damages(manifest)
    assert (manifest.kind, manifest.data.name, manifest.recipe["depth"]) == ("ltr", "tiny/test", 6)
    assert manifest.recipe["learner"]["trees"] == 20
    rankpipe("rerank", "a.trec", "--data", tiny_path, "--use", "ltr", "--set", "folder=learned", "--out", "b.trec")
    data, before, after = open_dataset(tiny_path), read_run(Path("a.trec")).run, read_run(Path("b.trec")).run
    made = LearnedRanker(Path("learned"))(rankings(before, data))
    assert {r.query.id: [h.doc.id for h in r.hits] for r in made} == {q: ordered(hits) for q, hits in after.items()}
    first, then = (evaluate(run, data.qrels, ["nDCG@10"]).means["nDCG@10"] for run in (before, after))
    assert then > first + 0.1  # on what it learned from


def test_judgements_and_features_of_ones_own(rankpipe: Rankpipe, tiny_path: Path) -> None:
    rankpipe("rerank", "a.trec", "--data", tiny_path, "--use", "top", "--set", "k=9", "--out", "a.jsonl")
    rows = [line.split() for line in Path("a.trec").read_text().splitlines()]
    Path("mine.qrels").write_text("".join(f"{q} 0 {doc} {int(rank == '2')}\n" for q, _, doc, rank, *_ in rows))
    features = ("--set", "features=[first_rank, covered]")
    told = rankpipe("fit", "a.jsonl", "--qrels", "mine.qrels", *LEARNER, *features, "--out", "learned", "--json")
    made = json.loads(told.stdout)
    assert (made["folder"], made["data"], made["features"]) == ("learned", "mine", ["first_rank", "covered"])
    assert made["relevant"] == made["queries"] == 8
    assert sum(made["importance"].values()) == pytest.approx(1, abs=1e-3)
    assert made["importance"]["first_rank"] > 0.9


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("RUN", "--set", "learner={use: sliding}"), 2, "learner: Sliding(size=20, step=10) is none; there are {use"),
        (("RUN", "--set", "learner=yetirank"), 2, "learner: 'yetirank' is none"),
        (("RUN", "--set", "learner={use: lambdamart, trees: 0}"), 2, "trees: 0; expected 1 or more"),
        (("RUN", "--set", "features=[coverd]"), 2, "no feature 'coverd'; did you mean covered"),
        (("RUN", "--set", "features=[cosine]"), 2, "cosine needs encoder"),
        (("RUN", "--set", "depth=3"), 2, "no argument 'depth'"),
        (("RUN", "--use", "top"), 2, "top: cannot fit"),
        (("a.jsonl",), 2, "no judgements"),
        (("RUN", "--qrels", "nothing.qrels"), 4, "none of 8 rankings has both relevant and other hits"),
    ],
)
def test_refused(rankpipe: Rankpipe, tiny_path: Path, words: tuple[str, ...], code: int, said: str) -> None:
    Path("nothing.qrels").write_text("q 0 tide-1 1\n")
    given = ("a.trec", "--data", tiny_path) if words[0] == "RUN" else words[:1]
    done = rankpipe("fit", *given, *words[1:], "--out", "learned", code=code)
    assert said in " ".join(done.stderr.split())
    assert not Path("learned", "manifest.json").exists()
