"""What a command refuses before it does anything, with which exit code; and that one which fails leaves nothing."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from rankpipe.cli import app, changes, evaluate, fit, index, recipes, rerank, search, show, view

VERBS = (changes, evaluate, fit, index, recipes, rerank, search, view)  # importing them registers their verbs
Rankpipe = Callable[..., Result]
FAKE = ("--use", "listwise", "--set", "lm={use: fake}", "--set", "plan={use: sliding, size: 2, step: 1}")


@pytest.fixture
def rankpipe(tmp_path: Path, tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rankpipe:
    """The command, in this process, beside a BEIR folder, an index of it and a run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(show, "manner", show.Manner())
    for source in (path for path in tiny_path.rglob("*") if path.is_file()):
        target = Path("mine") / source.relative_to(tiny_path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())

    def run(*words: object, code: int = 0) -> Result:
        done = CliRunner().invoke(app, [*map(str, words)])
        assert done.exit_code == code, (words, done.output)
        return done

    run("index", "build", "words", "--data", "mine")
    run("search", "words", "--data", "mine", "--out", "a.trec")
    return run


def everything() -> dict[str, bytes]:
    """All that is here, but for what SQLite has beside a file that is still open."""
    there = [path for path in Path().rglob("*") if not path.name.endswith(("-wal", "-shm"))]
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in there}


def refused(rankpipe: Rankpipe, *words: object, code: int) -> str:
    """What it says; it has changed nothing."""
    before = everything()
    said = rankpipe(*words, code=code)
    assert everything() == before
    return " ".join((said.stderr or said.stdout).split())


NEEDY = """
from rankpipe.catalog import require
from rankpipe.stage import Reranker

class Needy(Reranker):
    def __init__(self):
        require("no_such_module", name="Needy", extra="lm")

    def run(self, batch):
        return batch

    @classmethod
    def fit(cls, rankings, qrels, folder, *, name, learner=None):
        raise AssertionError

class Kind:
    @classmethod
    def build(cls, data, folder):
        raise AssertionError

    @staticmethod
    def needs():
        require("no_such_module", name="Kind", extra="st")
"""
LACKING = "which is not installed: pip install 'rankpipe["


@pytest.fixture
def needy(rankpipe: Rankpipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rankpipe:
    """Beside a reranker and a kind of index that need what is never installed, and an experiment with both."""
    Path("needy.py").write_text(NEEDY)
    monkeypatch.syspath_prepend(str(tmp_path))
    for place, recipe in {
        "indexes/plain": "{data: mine, index: {use: bm25}}",
        "indexes/needy": "{data: mine, index: {use: 'needy:Kind'}}",
        "eval/needy": "{data: mine, systems: {one: [{use: bm25, index: indexes/plain}], "
        "two: [{use: bm25, index: indexes/needy}], three: [{use: bm25, index: indexes/plain}, {use: 'needy:Needy'}]}}",
        "eval/wrong": "{data: mine, systems: {one: [{use: bm25, index: indexes/plain}, {use: 'needy:Needy'}], "
        "two: [{use: bm52}]}}",
    }.items():
        Path(place).mkdir(parents=True)
        Path(place, "recipe.yaml").write_text(recipe)
    return rankpipe


@pytest.mark.parametrize(
    "words",
    [
        ("rerank", "a.trec", "--data", "mine", "--use", "needy:Needy", "--out", "b.trec"),
        ("fit", "a.trec", "--data", "mine", "--set", "learner={use: 'needy:Needy'}", "--out", "learned"),
        ("index", "build", "new", "--data", "mine", "--use", "needy:Kind"),
        ("index", "build", "indexes/needy"),
        ("check", "indexes/needy"),
        ("check", "eval/needy"),
        ("run", "eval/needy"),
    ],
)
def test_a_missing_extra_has_one_code_and_is_found_at_once(needy: Rankpipe, words: tuple[str, ...]) -> None:
    said = refused(needy, *words, code=5)
    assert said.startswith("MissingExtra: ")
    assert LACKING in said
    if "eval/needy" in words:
        assert f"indexes/needy: index: Kind needs 'no_such_module', {LACKING}st]'" in said
        assert f"systems.three[1]: needy:Needy: Needy needs 'no_such_module', {LACKING}lm]'" in said


def test_a_missing_extra_is_told_among_other_faults(needy: Rankpipe) -> None:
    for verb in ("check", "run"):
        said = refused(needy, verb, "eval/wrong", code=3)
        assert "RecipeError: 2 faults in eval/wrong" in said
        assert LACKING in said
        assert "did you mean bm25" in said
    said = refused(needy, "rerank", "a.trec", "--data", "mine", "--use", "needy:Needy", "--set", "x=1", code=2)
    assert said.startswith("CommandError: needy:Needy: no argument 'x'")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("index", "build", "new", "--data", "mine", "--use", "bm52"), "no component 'bm52'; did you mean bm25"),
        (("index", "build", "new", "--data", "mine", "--set", "k1=-1"), "k1: -1; expected 0 or more"),
        (("index", "build", "new", "--data", "mine", "--set", "k1"), "--set k1: expected KEY=VALUE"),
        (("index", "build", "new", "--data", "mine", "--memory", "1KB"), "memory: '1KB'; expected 256 MB or more"),
        (("index", "build", "new"), "new: no recipe.yaml here; name a collection with --data"),
        (("index", "delete", "words"), "say which documents"),
        (("search", "words", "tea", "--where", "year >"), "where: 'year >': at the end: expected a value"),
        (("search", "words"), "say what to search for"),
        (("search", "words", "tea", "--out", "x.csv"), "--out x.csv: a run is no .csv; name it .trec, or .jsonl"),
        (("rerank", "a.trec", "--use", "single"), "single is not a stage"),
        (("rerank", "a.trec"), "a TREC run has no texts; say where they are with --data"),
        (("rerank", "a.trec", "--data", "mine", "--depth", "0"), "Invalid value for '--depth'"),
        (("rerank", "a.trec", "--data", "mine", "--ledger"), "say with --out where that is to be"),
        (("eval", "a.trec"), "no judgements: name a data set with --data"),
        (("run", "eval/x", "--gpus", "1"), "those of a cluster: add --engine ray"),
    ],
)
def test_a_wrong_command_line_has_one_code(rankpipe: Rankpipe, words: tuple[str, ...], said: str) -> None:
    told = refused(rankpipe, *words, code=2)
    assert said in told
    assert "recipe:" not in told
    if "Invalid" not in said:
        told = json.loads(rankpipe(*words, "--json", code=2).stdout)
        assert told["error"] == "CommandError"
        assert said in " ".join(told["faults"])


def test_several_faults_of_a_command_line(rankpipe: Rankpipe) -> None:
    said = refused(rankpipe, "index", "build", "new", "--data", "mine", "--set", "x=1", "--set", "k1=a", code=2)
    assert said.startswith("CommandError: 2 faults in the command line: - bm25: no argument 'x'")


@pytest.mark.parametrize(
    "words",
    [
        *(
            ("rerank", "a.trec", "--data", "mine", "--use", "top", "--set", "k=2", "--out", out)
            for out in ("a.trec", "./mine/../a.trec", "link", "mine/queries.jsonl", "mine/corpus.jsonl")
        ),
        ("rerank", "a.trec", "--data", "mine/corpus.jsonl", "--topics", "topics.tsv", "--out", "topics.tsv"),
        ("search", "words", "--data", "mine", "--out", "mine/qrels/test.tsv"),
        ("search", "words", "--data", "mine", "--out", "words/manifest.json"),
        ("search", "words", "--with", "more", "tea", "--out", "more/recipe.yaml"),
        ("search", "words", "--topics", "topics.tsv", "--out", "topics.tsv"),
        ("fit", "a.trec", "--data", "mine", "--out", "a.trec"),
        ("fit", "a.trec", "--data", "mine", "--out", "mine"),
        ("fit", "a.trec", "--data", "mine", "--qrels", "mine/qrels/test.tsv", "--out", "mine/qrels/test.tsv"),
        ("eval", "b.trec", "a.trec", "--data", "mine", "--report", "a.trec"),
        ("compare", "b.trec", "a.trec", "--data", "mine", "--report", "b.trec"),
        ("index", "export", "words", "--out", "words/recipe.yaml"),
        ("rerank", "a.trec", "--data", "mine", *FAKE, "--set", "prompt=mine.yaml", "--out", "mine.yaml"),
    ],
)
def test_a_command_does_not_write_over_what_it_reads(rankpipe: Rankpipe, words: tuple[str, ...]) -> None:
    rankpipe("index", "build", "more", "--data", "mine")
    Path("topics.tsv").write_text("q1\ttea\n")
    Path("b.trec").write_bytes(Path("a.trec").read_bytes())
    Path("mine.yaml").write_text("about: x\n")
    Path("link").symlink_to("a.trec")
    option = "--report" if "--report" in words else "--out"
    said = refused(rankpipe, *words, code=2)
    assert f"{option} {Path(words[-1])}: this command reads it; name another place" in said


def test_a_known_collection_is_not_written_over(rankpipe: Rankpipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though only its name is said."""
    Path("mine").rename("scifact")
    monkeypatch.setenv("RANKPIPE_DATA", str(Path.cwd()))
    for name in ("beir/scifact/test", "scifact"):
        said = refused(rankpipe, "search", "words", "--data", name, "--out", "scifact/queries.jsonl", code=2)
        assert "this command reads it" in said


def test_what_lies_beside_what_is_read_may_be_written_again(rankpipe: Rankpipe) -> None:
    for _ in range(2):
        rankpipe("search", "words", "--data", "mine", "--out", "mine/b.trec")
    for _ in range(2):
        rankpipe("rerank", "a.trec", "--data", "mine", *FAKE, "--ledger", "--out", "c.trec")
    rankpipe("rerank", "a.trec", "--data", "mine", "--replay", "c.trec", "--ledger", "--out", "c.trec")


def test_what_was_built_by_another_kind_is_not_replaced(rankpipe: Rankpipe) -> None:
    pytest.importorskip("lightgbm")
    learn = ("fit", "a.trec", "--data", "mine", "--set", "learner={use: lambdamart, trees: 3, min_leaf: 1}", "--out")
    assert "words: holds a 'bm25', which a 'ltr' does not replace" in refused(rankpipe, *learn, "words", code=6)
    Path("runs").mkdir()
    Path("runs/notes.txt").touch()
    assert "runs: holds notes.txt, and nothing that was built" in refused(rankpipe, *learn, "runs", code=6)
    rankpipe(*learn, "learned")
    rankpipe(*learn, "learned")
    build = ("index", "build", "learned", "--data", "mine")
    assert "holds a 'ltr', which a 'bm25' does not replace" in (said := refused(rankpipe, *build, code=6))
    assert "--force replaces it" in said
    for words in (("search", "learned", "tea"), ("index", "add", "learned", "--data", "mine")):
        assert "learned: holds a 'ltr', which is no index" in refused(rankpipe, *words, code=6)
    rankpipe(*build, "--force")
    assert rankpipe("search", "learned", "tea")


def test_force_spares_what_was_not_built_here(rankpipe: Rankpipe) -> None:
    Path("made").mkdir()
    Path("made/letter.txt").write_text("dear")
    Path("eval/mine").mkdir(parents=True)
    Path("eval/mine/recipe.yaml").write_text("{data: mine, systems: {one: [{use: bm25, index: words}]}}")
    for folder, holds in (("mine", "corpus.jsonl"), ("made", "letter.txt"), ("eval/mine", "no recipe of an index")):
        for more in ((), ("--force",)):
            assert holds in refused(rankpipe, "index", "build", folder, "--data", "mine", *more, code=6)
    rankpipe("run", "eval/mine", "--no-report")
    assert "holds a 'runs', which is no index" in refused(rankpipe, "search", "eval/mine", "tea", code=6)


def test_an_experiment_beside_other_files(rankpipe: Rankpipe) -> None:
    """Its folder is where its recipe lies; what else lies there, even in ``made``, is left alone."""
    Path("made").mkdir()
    Path("made/letter.txt").write_text("dear")
    Path("one.yaml").write_text("{data: mine, systems: {one: [{use: bm25, index: words}]}}")
    rankpipe("run", "one.yaml", "--no-report")
    assert Path("made/letter.txt").read_text() == "dear"
    Path("words/one.yaml").write_text("{data: mine, systems: {one: [{use: bm25, index: words}]}}")
    assert "words: holds a 'bm25', which a 'runs' does not" in refused(rankpipe, "run", "words/one.yaml", code=6)


def test_no_queries(rankpipe: Rankpipe) -> None:
    said = refused(rankpipe, "search", "words", "--data", "mine/corpus.jsonl", "--out", "y", code=4)
    assert "mine/corpus.jsonl: no queries in it; name a file of them with --topics" in said


def test_why_nothing_was_kept_of_a_run(rankpipe: Rankpipe) -> None:
    """The cure is that of the reranker that made it, or there is none."""
    for words, code in ((("view",), 4), (("rerank", "a.trec", "--data", "mine", "--replay"), 6)):
        said = refused(rankpipe, *words, "a.trec", code=code)
        assert (
            "keeps them with: rankpipe rerank --ledger --out a.trec. Others (cross-encoder, late, splade, ltr)" in said
        )
        assert "none.trec: no such file" in (said := refused(rankpipe, *words, "none.trec", code=4))
        assert "--ledger" not in said


def test_a_replay_says_what_its_run_was_made_from(rankpipe: Rankpipe) -> None:
    rankpipe("rerank", "a.trec", "--data", "mine", *FAKE, "--ledger", "--out", "b.trec")
    rankpipe("search", "words", "--data", "mine", "-k", 2, "--out", "c.trec")
    replay = ("--data", "mine", "--replay", "b.trec", "--out", "d.trec")
    said = refused(rankpipe, "rerank", "c.trec", *replay, code=4)
    assert said.startswith("DataError: b.trec was made from a.trec (checksum ")
    assert "), but c.trec (checksum " in said
    Path("e.trec").write_bytes(Path("a.trec").read_bytes())
    rankpipe("rerank", "e.trec", *replay)  # the same by another name
    Path("a.trec").write_bytes(Path("c.trec").read_bytes())
    said = refused(rankpipe, "rerank", "a.trec", *replay, code=4)
    first, second = (part.split(")")[0] for part in said.split("a.trec (checksum ")[1:])
    assert first != second


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("rerank", "a.trec", "--data", "mine", "--model", "m", "--lm", "http://127.0.0.1:9", "--out", "n/b.trec"), 7),
        (("rerank", "a.trec", "--data", "mine", *FAKE, "--cache", "n/c.sqlite", "--out", "/dev/null/b"), 8),
        (("rerank", "a.trec", "--data", "mine", *FAKE, "--cache", "/dev/null/c.sqlite", "--out", "n/b.trec"), 8),
        (("rerank", "a.trec", "--data", "mine", "--use", "api", "--set", "dialect=tei", "--set",
          "url=http://127.0.0.1:9", "--ledger", "--out", "n/b.trec"), 7),
        (("rerank", "none.trec", "--data", "mine", *FAKE, "--ledger", "--out", "n/b.trec"), 4),
        (("index", "build", "n/new", "--data", "twice.jsonl"), 4),
        (("index", "build", "words", "--data", "twice.jsonl", "--force"), 4),
        (("index", "add", "words", "--data", "twice.jsonl"), 4),
        (("index", "add", "none", "--data", "mine"), 6),
        (("fit", "a.trec", "--data", "mine", "--out", "n/learned"), 4),
        (("run", "eval/none"), 4),
    ],
)  # fmt: skip
def test_a_command_that_fails_leaves_nothing(rankpipe: Rankpipe, words: tuple[str, ...], code: int) -> None:
    if words[0] == "fit":
        pytest.importorskip("lightgbm")
    Path("twice.jsonl").write_text('{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}\n')
    refused(rankpipe, *words, code=code)


def test_a_recipe_that_is_elsewhere(rankpipe: Rankpipe) -> None:
    for verb in ("run", "check"):
        said = refused(rankpipe, verb, "eval/scifact", code=4)
        assert "eval/scifact: no such recipe here; rankpipe's own come with a clone of its repository" in said
        assert "rankpipe demo writes some" in said
        assert "repository" not in refused(rankpipe, verb, "mine.yaml", code=4)


def test_documents_and_queries_are_not_written_over(rankpipe: Rankpipe) -> None:
    packed = gzip.compress(b'{"_id": "a", "text": "b"}\n')
    for name, text in (
        ("other.jsonl", b'{"_id": "a", "text": "b"}\n'),
        ("other.jsonl", b'{ "_id": "a"}\n'),
        ("other.jsonl", b'\xef\xbb\xbf{"id": "a", "contents": "b"}\n'),
        ("other.jsonl.gz", packed),
        ("other.jsonl.gz", b"torn"),
        ("NOTES", b"remember the milk\n"),
    ):
        Path(name).write_bytes(text)
        for words in (("index", "export", "words"), ("search", "words", "--data", "mine")):
            assert "holds something else, such as documents" in refused(rankpipe, *words, "--out", name, code=2)
        assert Path(name).read_bytes() == text
    for name in ("a.trec", "a.trec.gz", "a.jsonl", "a.jsonl.gz", "empty.trec"):
        for _ in range(2):  # its own are written over
            rankpipe("search", "words", "--data", "mine", "--out", name)
    inside = refused(rankpipe, "index", "export", "words", "--out", "words/x.jsonl", code=2)
    assert "lies in a folder that was built" in inside
    for words in (("index", "export", "words"), ("search", "words", "--data", "mine")):
        assert "or /dev/stdout" in refused(rankpipe, *words, "--out", "-", code=2)
    for name in ("x.parquet", "x"):
        assert "a corpus is a .jsonl" in refused(rankpipe, "index", "export", "words", "--out", name, code=2)
    rankpipe("index", "export", "words", "--out", "x.jsonl")
    assert "replace it with --force" in refused(rankpipe, "index", "export", "words", "--out", "x.jsonl", code=2)
    rankpipe("index", "export", "words", "--out", "x.jsonl", "--force")


def test_what_was_changed_is_not_built_over_even_if_its_manifest_is_damaged(rankpipe: Rankpipe) -> None:
    rankpipe("index", "delete", "words", "tide-1")
    assert "changed once since it was built" in refused(rankpipe, "index", "build", "words", "--data", "mine", code=6)
    manifest = Path("words/manifest.json")
    manifest.write_text(manifest.read_text().replace("created", "creates"))
    assert "damaged manifest" in refused(rankpipe, "index", "build", "words", "--data", "mine", code=6)
    rankpipe("index", "build", "words", "--data", "mine", "--force")


def test_an_exported_corpus_may_be_packed(rankpipe: Rankpipe) -> None:
    rankpipe("index", "export", "words", "--out", "out.jsonl.gz")
    rankpipe("index", "export", "words", "--out", "out.jsonl")
    assert gzip.decompress(Path("out.jsonl.gz").read_bytes()) == Path("out.jsonl").read_bytes()
    rankpipe("index", "build", "again", "--data", "out.jsonl.gz")


def test_of_two_values_none_is_lost(rankpipe: Rankpipe) -> None:
    assert "-k is given twice" in refused(rankpipe, "search", "words", "tide", "-k", 3, "-k", 4, code=2)
    twice = refused(rankpipe, "index", "update", "words", "--data", "mine", "--data=mine", code=2)
    assert "--data is given twice" in twice
    rankpipe("search", "words", "tide", "--set", "k1=1", "--set", "b=0.5")


def test_ids_are_no_emoji(rankpipe: Rankpipe) -> None:
    assert ":tea:" in rankpipe("index", "delete", "words", ":tea:").stderr


def test_fused_indexes_give_as_many_hits_as_one(rankpipe: Rankpipe) -> None:
    Path("many.jsonl").write_text("".join(f'{{"_id": "d{i}", "text": "tea {i}"}}\n' for i in range(1200)))
    for name in ("one", "two"):
        rankpipe("index", "build", name, "--data", "many.jsonl")
    rankpipe("search", "one", "tea", "--with", "two", "-k", 1100, "--out", "a.trec")
    assert len(Path("a.trec").read_text().splitlines()) == 1100


def test_an_export_tells_numbers_that_json_has_not(rankpipe: Rankpipe) -> None:
    """Not words that look like them."""
    made = [{"a": float("nan")}, {"a": {"b": [-float("inf")]}}, {"a": 1.5, "NaN": "Infinity"}, {}]
    lines = [json.dumps({"_id": f"d{i}", "text": "NaN tea", **fields}) for i, fields in enumerate(made)]
    Path("odd.jsonl").write_text("\n".join(lines))
    rankpipe("index", "build", "odd", "--data", "odd.jsonl")
    said = rankpipe("index", "export", "odd", "--out", "out.jsonl").stderr
    assert "2 documents have NaN or Infinity in a field" in said
    rankpipe("index", "delete", "odd", "d0", "d1")
    assert "Infinity" not in rankpipe("index", "export", "odd", "--out", "rest.jsonl").stderr


def test_what_would_steer_a_terminal_is_spelled_out(rankpipe: Rankpipe) -> None:
    Path("evil.jsonl").write_text(json.dumps({"_id": "a", "text": "red \x1b[31m tea"}) + "\n")
    rankpipe("index", "build", "evil", "--data", "evil.jsonl")
    said = rankpipe("search", "evil", "tea").stdout
    assert "\\x1b[31m" in said
    assert "\x1b" not in said


def test_an_index_is_searched_by_its_verb_too(rankpipe: Rankpipe) -> None:
    both = [rankpipe(*verb, "words", "tide").stdout for verb in (["index", "search"], ["search"])]
    hits = {said.partition("┃stage")[0].rpartition("┘")[0] for said in both}  # without what it took, if that is told
    assert len(hits) == 1
