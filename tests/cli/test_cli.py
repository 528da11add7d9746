"""Every verb as a user types it, in a folder of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli import forked
from tests.cli.forked import COMMAND

Run = subprocess.CompletedProcess[str]
Rankpipe = Callable[..., Run]


@pytest.fixture
def rankpipe(tmp_path: Path) -> Rankpipe:
    def run(*words: object, code: int = 0) -> Run:
        done = forked.run([*map(str, words)], tmp_path)
        assert done.returncode == code, (words, done.stdout[-2000:], done.stderr[-2000:])
        assert "Traceback" not in done.stderr
        return done

    return run


VERBS = ["", "index", "index build", "index add", "index delete", "search", "rerank", "fit", "eval", "compare", "run",
         "check", "pull", "data", "tables"]  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_without_arguments_shows_its_help(rankpipe: Rankpipe, verb: str) -> None:
    done = rankpipe(*verb.split(), code=2)
    assert "Usage: rankpipe" in done.stdout + done.stderr


def test_version(rankpipe: Rankpipe) -> None:
    assert rankpipe("--version").stdout.strip() == __import__("rankpipe").__version__


def test_index_search_rerank_eval_compare(rankpipe: Rankpipe, tiny_path: Path, tmp_path: Path) -> None:
    rankpipe("index", "build", "words", "--data", tiny_path)
    assert "is current" in rankpipe("index", "build", "words").stdout
    assert rankpipe("search", "words", "tea").stdout
    rankpipe("search", "words", "--data", tiny_path, "-k", 50, "--out", "a.trec")
    fake = ("--use", "listwise", "--set", "lm={use: fake}", "--set", "plan={use: single, size: 5}")
    rankpipe("rerank", "a.trec", "--data", tiny_path, *fake, "--out", "b.trec")
    made = json.loads(
        rankpipe("eval", "a.trec", "b.trec", "--data", tiny_path, "--json", "-m", "nDCG@10", "-m", "map").stdout
    )
    assert set(made) == {"a.trec", "b.trec"}
    assert set(made["a.trec"]["means"]) == {"nDCG@10", "map"}
    assert made["a.trec"]["queries"] == 8
    compared = json.loads(rankpipe("compare", "a.trec", "b.trec", "--data", tiny_path, "--json").stdout)
    assert compared["baseline"] == "a.trec"
    rankpipe("eval", "a.trec", "--data", tiny_path, "--report", "r.html")
    assert "<svg" in (tmp_path / "r.html").read_text()


def test_a_long_question_is_a_short_title(rankpipe: Rankpipe, tiny_path: Path) -> None:
    rankpipe("index", "build", "words", "--data", tiny_path)
    said = rankpipe("search", "words", "tea and milk " * 100).stdout
    assert said.startswith("tea and milk tea and milk")
    assert said.splitlines()[0].endswith("tea and milk tea ...")
    assert "茶" * 96 + " ..." in rankpipe("search", "words", "茶" * 200).stdout


def test_json_goes_in_and_out(rankpipe: Rankpipe, tiny_path: Path) -> None:
    rankpipe("index", "build", "words", "--data", tiny_path)
    rankpipe("search", "words", "--data", tiny_path, "--out", "a.jsonl")
    rankpipe("rerank", "a.jsonl", "--use", "top", "--set", "k=2", "--out", "b.jsonl")
    made = json.loads(rankpipe("search", "words", "tea", "--json").stdout)
    assert made["rankings"][0]["query"]["text"] == "tea"


def test_single_files_of_trec(rankpipe: Rankpipe, tiny_path: Path, tmp_path: Path) -> None:
    """A corpus, topics, a run and qrels, each a file of its own."""
    (tmp_path / "topics.txt").write_text("<top>\n<num> Number: 7\n<title> causes of high tides\n</top>\n")
    (tmp_path / "qrels.txt").write_text("7 0 tide-1 1\n")
    corpus = tiny_path / "corpus.jsonl"
    rankpipe("index", "build", "words", "--data", corpus)
    rankpipe("search", "words", "--topics", "topics.txt", "--out", "a.trec")
    fake = ("--use", "listwise", "--set", "lm={use: fake}")
    rankpipe("rerank", "a.trec", "--data", corpus, "--topics", "topics.txt", *fake, "--out", "b.trec")
    assert {line.split()[0] for line in (tmp_path / "b.trec").read_text().splitlines()} == {"7"}
    compared = ("compare", "a.trec", "b.trec", "--topics", "topics.txt", "--qrels", "qrels.txt", "--json")
    told = json.loads(rankpipe(*compared).stdout)["evaluations"]["b.trec"]
    assert (told["policy"], told["judged"], told["missing"]) == ("mean over all 1 judged query", 1, 0)


def test_splits_and_policies(rankpipe: Rankpipe, tiny_path: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_path, tmp_path / "mine")
    (tmp_path / "mine" / "qrels" / "test.tsv").rename(tmp_path / "mine" / "qrels" / "dev.tsv")
    assert "it has dev" in rankpipe("data", "mine", code=4).stderr
    assert json.loads(rankpipe("data", "mine", "--split", "dev", "--json").stdout)["judged"] == 8
    rankpipe("index", "build", "words", "--data", "mine", "--split", "dev", "--titles", "drop")
    assert "titles: drop" in (tmp_path / "words" / "recipe.yaml").read_text()
    hits = json.loads(rankpipe("search", "words", "moon", "--json").stdout)["rankings"][0]["hits"]
    assert {h["title"] for h in hits} == {""}
    (tmp_path / "run").write_text("q1 Q0 q1 1 2 x\nq1 Q0 tide-1 2 1 x\n")
    told = ("eval", "run", "--data", "mine", "--split", "dev", "-m", "RR", "--retrieved-only", "--json")
    assert json.loads(rankpipe(*told).stdout)["run"]["means"]["RR"] == 0.5
    assert json.loads(rankpipe(*told, "--self-match", "drop").stdout)["run"]["means"]["RR"] == 1


def test_fail_if_worse(rankpipe: Rankpipe, tmp_path: Path) -> None:
    queries = [str(q) for q in range(30)]
    (tmp_path / "q").write_text("".join(f"{q} 0 good 1\n" for q in queries))
    (tmp_path / "a").write_text("".join(f"{q} Q0 good 1 2 x\n{q} Q0 bad 2 1 x\n" for q in queries))
    (tmp_path / "b").write_text("".join(f"{q} Q0 bad 1 2 x\n{q} Q0 good 2 1 x\n" for q in queries))
    rankpipe("compare", "a", "b", "--qrels", "q", "--fail-if-worse", "nDCG@10", code=10)
    rankpipe("compare", "b", "a", "--qrels", "q", "--fail-if-worse", "nDCG@10")
    rankpipe("compare", "a", "a", "--qrels", "q", "--fail-if-worse", "nDCG@10", code=4)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("index", "build", "new"), 2, "name a collection with --data"),
        (("index", "build", "new", "--data", "nowhere"), 4, "nowhere: no such path"),
        (("index", "build", "new", "--data", "TINY", "--use", "bm52"), 2, "did you mean bm25"),
        (("index", "build", "new", "--data", "TINY", "--set", "k9=1"), 2, "bm25: no argument 'k9'; it takes k1, b,"),
        (("index", "build", "new", "--data", "TINY", "--set", "k1"), 2, "expected KEY=VALUE"),
        (("index", "build", "new", "--data", "TINY", "--set", "k1=many"), 2, "k1: 'many' is a str, expected float"),
        (("search", "nothing", "q"), 6, "nothing built here"),
        (("search", "nothing"), 2, "either a question, or many by --data"),
        (("eval", "none.trec", "--data", "TINY"), 4, "none.trec: no such file"),
        (("eval", "none.trec"), 2, "name a data set with --data"),
        (("rerank", "a.trec", "--use", "single"), 2, "single is not a stage"),
        (("check", "nothing"), 4, "nothing: no such recipe"),
        (("data", "beir/scifacts/test"), 4, "did you mean"),
        (("pull", "no-such-model"), 5, "no-such-model"),
        (("doctor", "rocket"), 4, "no part 'rocket'"),
        (("index", "build", "new", "--nonsense"), 2, "No such option"),
        (("index", "build", "new", "--data", "TINY", "--set", "k1={"), 2, "the value is no YAML"),
        (("rerank", "a.trec", "--data", "TINY", "--use", "top", "--set", "k=0"), 2, "k: 0 hits; expected 1 or more"),
        (("rerank", "a.trec", "--data", "TINY", "--use", "listwise", "--set", "lm=3"), 2, "lm: 3 is no language model"),
        (("tables", "nothing.md"), 4, "nothing.md: no such file"),
        (("index", "build", "/dev/null/new", "--data", "TINY"), 8, "cannot be written"),
        (("index", "build", "new", "--data", "TINY", "--address", "a:1"), 2, "those of a cluster: add --engine ray"),
        (("run", "eval/x", "--gpus", "1"), 2, "those of a cluster: add --engine ray"),
        (("index", "build", "new", "--data", "TINY", "--engine", "rya"), 2, "'rya' is not one of"),
    ],
)
def test_errors_say_what_and_the_cure(
    rankpipe: Rankpipe, tiny_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    done = rankpipe(*(w.replace("TINY", str(tiny_path)) for w in words), code=code)
    assert said in " ".join(done.stderr.split())


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [COMMAND, "eval", "none", "--data", "pydocs", "--debug"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "Traceback" in done.stderr


def test_errors_as_json(rankpipe: Rankpipe) -> None:
    made = json.loads(rankpipe("search", "nothing", "q", "--json", code=6).stdout)
    assert made["error"] == "ArtefactError"
    made = json.loads(rankpipe("rerank", "a.trec", "--use", "top", "--set", "k=0", "--json", code=2).stdout)
    assert made["faults"] == ["top: k: 0 hits; expected 1 or more"]


def test_ls(rankpipe: Rankpipe) -> None:
    made = json.loads(rankpipe("ls", "--json").stdout)
    assert {"bm25", "dense", "listwise"} <= {c["name"] for c in made["components"]}
    assert "smollm2" in {m["name"] for m in made["models"]}
    kinds = {"sliding": "plan", "ltr": "reranker", "fuse": "retriever", "http": "lm", "top": "stage", "kl": "loss"}
    assert kinds.items() <= {c["name"]: c["kind"] for c in made["components"]}.items()
    said = rankpipe("ls").stdout
    titles = ("Plans of", "Rerankers", "Language models", "Losses", "Prompts", "Features of")
    assert all(f"{title} " in said for title in titles)


def test_ls_of_one(rankpipe: Rankpipe) -> None:
    made = json.loads(rankpipe("ls", "first", "--json").stdout)
    assert {"lm": None, "plan": "Sliding(size=20, step=10)", "prompt": "'first'", "depth": "100"}.items() <= {
        a["name"]: a["default"] for a in made["component"]["arguments"]
    }.items()
    assert all(a["about"] for a in made["component"]["arguments"])
    assert "alphabetical identifier" in made["prompt"]
    assert "Replies that had to be mended are counted" in made["component"]["documentation"]
    said = rankpipe("ls", "ltr").stdout
    assert all(word in said for word in ("folder", "learner", "features", "a cross-encoder, for the feature"))
    assert "k1" in rankpipe("ls", "bm25").stdout
    assert "castorini/rank_zephyr_7b_v1_full" in rankpipe("ls", "rank-zephyr").stdout
    assert "did you mean sliding" in rankpipe("ls", "slidin", code=4).stderr


def test_doctor_tries(rankpipe: Rankpipe) -> None:
    made = {f["part"]: f for f in json.loads(rankpipe("doctor", "bm25", "faiss", "measures", "--json").stdout)}
    assert all(f["state"] == "works" for f in made.values())


def test_an_index_is_not_replaced_by_another_recipe(rankpipe: Rankpipe, tiny_path: Path) -> None:
    rankpipe("index", "build", "words", "--data", tiny_path)
    done = rankpipe("index", "build", "words", "--data", tiny_path, "--set", "k1=2.0", code=6)
    assert "--force" in done.stderr
    rankpipe("index", "build", "words", "--data", tiny_path, "--set", "k1=2.0", "--force")


def test_a_build_that_fails_leaves_the_recipe(rankpipe: Rankpipe, tiny_path: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}\n')
    rankpipe("index", "build", "words", "--data", "bad.jsonl", code=4)
    assert not (tmp_path / "words" / "recipe.yaml").exists()
    rankpipe("index", "build", "words", "--data", tiny_path)
    before = (tmp_path / "words" / "recipe.yaml").read_text()
    rankpipe("index", "build", "words", "--data", "bad.jsonl", "--force", code=4)
    assert (tmp_path / "words" / "recipe.yaml").read_text() == before
    assert "is current" in rankpipe("index", "build", "words").stdout


def test_an_index_whose_documents_changed_says_so(rankpipe: Rankpipe, tmp_path: Path) -> None:
    corpus = tmp_path / "c.jsonl"
    corpus.write_text('{"_id": "a", "text": "high water"}\n')
    rankpipe("index", "build", "words", "--data", "c.jsonl")
    assert "have changed" not in rankpipe("search", "words", "water").stderr
    corpus.write_text('{"_id": "a", "text": "low water"}\n')
    os.utime(corpus, (time.time() + 5, time.time() + 5))
    assert "its documents have changed since it was built" in rankpipe("search", "words", "water").stderr


def test_every_byte_of_an_index_can_be_verified(rankpipe: Rankpipe, tiny_path: Path, tmp_path: Path) -> None:
    rankpipe("index", "build", "words", "--data", tiny_path)
    assert "as they were written" in rankpipe("index", "verify", "words").stdout
    [docs] = (tmp_path / "words" / "made").glob("*/*/docs.jsonl")
    content = bytearray(docs.read_bytes())
    content[10] ^= 1
    docs.write_bytes(content)
    assert "docs.jsonl is damaged" in rankpipe("index", "verify", "words", code=6).stderr
    told = json.loads(rankpipe("index", "verify", "words", "--json", code=6).stdout)
    assert "docs.jsonl is damaged" in told["damages"][0]
    assert "rankpipe index build" in told["cure"]


def test_an_index_is_searched_without_the_documents_it_was_built_from(rankpipe: Rankpipe, tmp_path: Path) -> None:
    corpus = tmp_path / "c.jsonl"
    corpus.write_text('{"_id": "a", "text": "high water"}\n')
    rankpipe("index", "build", "words", "--data", "c.jsonl")
    os.rename(corpus, tmp_path / "d.jsonl")
    for place, text in ((corpus, ""), (corpus, "{"), (tmp_path / "words" / "recipe.yaml", "a: [")):
        if text:
            place.write_text(text)
        assert "high water" in rankpipe("search", "words", "water").stdout
        rankpipe("index", "export", "words", "--out", "kept.jsonl")
        os.unlink(tmp_path / "kept.jsonl")


def test_experiments_take_indexes_as_they_are(rankpipe: Rankpipe, tiny_path: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(tiny_path, tmp_path / "mine")
    (tmp_path / "eval" / "x").mkdir(parents=True)
    (tmp_path / "eval" / "x" / "recipe.yaml").write_text(
        f"data: {tiny_path}\nmeasures: [P@1]\nsystems:\n  bm25: [{{use: bm25, index: indexes/words}}]\n"
    )
    rankpipe("index", "build", "indexes/words", "--data", "mine")
    mine.rename(tmp_path / "moved")
    assert "documents are not there any more" in rankpipe("run", "eval/x").stderr
    rankpipe("index", "delete", "indexes/words", "tide-1")
    assert "was changed since it was built" in rankpipe("run", "eval/x", "--force").stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_standard_output_is_told(rankpipe: Rankpipe, tiny_path: Path, tmp_path: Path) -> None:
    rankpipe("index", "build", "words", "--data", tiny_path)
    for more in ([], ["--json"]):
        with open("/dev/full", "w") as full:
            command = [sys.executable, "-m", "rankpipe.cli", "search", str(tmp_path / "words"), "tide", *more]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 8
        assert "standard output cannot be written" in done.stderr
        assert "Traceback" not in done.stderr


def test_json_has_no_numbers_that_json_has_not(rankpipe: Rankpipe, tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"_id": "a", "text": "tea", "price": Infinity, "size": [1, NaN]}\n')
    rankpipe("index", "build", "words", "--data", "c.jsonl")
    told = rankpipe("search", "words", "tea", "--show", "price,size", "--json").stdout
    [hit] = json.loads(told, parse_constant=pytest.fail)["rankings"][0]["hits"]
    assert hit["fields"] == {"price": [None], "size": [1]}


def test_more_hits_than_are_shown_are_told(rankpipe: Rankpipe, tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text("".join(f'{{"_id": "{i}", "text": "tea"}}\n' for i in range(13)))
    rankpipe("index", "build", "words", "--data", "c.jsonl")
    assert "3 more hits" in rankpipe("search", "words", "tea", "-k", "13").stderr
    assert "more hit" not in rankpipe("search", "words", "tea", "-k", "10").stderr


def test_what_a_recipe_says_is_not_said_again(rankpipe: Rankpipe, tiny_path: Path) -> None:
    rankpipe("index", "build", "words", "--data", tiny_path)
    for words in (("--use", "dense"), ("--set", "k1=2.0", "--force"), ("--recall", "0.9")):
        assert "recipe.yaml says how" in " ".join(rankpipe("index", "build", "words", *words, code=2).stderr.split())
    assert "is a file" in rankpipe("search", "words/recipe.yaml", "tide", code=6).stderr
    assert "there is nothing to fuse" in rankpipe("search", "words", "tide", "--fuse", "minmax", code=2).stderr
    zero = ("search", "words", "--with", "words", "tide", "--weights", "0,0")
    assert "weights: are all 0" in rankpipe(*zero, code=2).stderr


def test_ids_with_spaces_and_unicode(rankpipe: Rankpipe, tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text(
        '{"_id": "mein Dokument ☕", "text": "tea leaves"}\n{"_id": "b", "text": "bread"}\n'
    )
    rankpipe("index", "build", "words", "--data", "c.jsonl")
    made = json.loads(rankpipe("search", "words", "tea", "--json").stdout)
    assert made["rankings"][0]["hits"][0]["docid"] == "mein Dokument ☕"
    done = rankpipe("search", "words", "tea", "--out", "a.trec", code=4)
    assert "write a .jsonl ranking instead" in " ".join(done.stderr.split())
    rankpipe("search", "words", "tea", "--out", "a.jsonl")


def texts_written(folder: Path, since: float) -> int:
    """Bytes of texts in the unfinished build that was begun after ``since``; 0 if there is none."""
    found = 0
    for path in folder.glob("made/.work-*/000000/docs.jsonl"):
        with suppress(FileNotFoundError):  # swept away, or finished
            found = path.stat().st_size if path.stat().st_mtime > since else 0
    return found


def test_kill_9_during_a_build(rankpipe: Rankpipe, tmp_path: Path) -> None:
    rows = (
        f'{{"_id": "d{i}", "text": "{" ".join(f"word{(i * j) % 977}" for j in range(60))}"}}\n' for i in range(6000)
    )
    (tmp_path / "c.jsonl").write_text("".join(rows))
    rankpipe("index", "build", "small", "--data", "c.jsonl")
    before = rankpipe("search", "small", "word5 word7", "--json").stdout
    [whole] = [path.stat().st_size for path in (tmp_path / "small" / "made").glob("*/*/docs.jsonl")]
    inside = 0
    for part in (0.0, 0.4, 0.99):  # of the texts: at the first, amid them, and when the postings are sorted
        started = time.time()
        building = subprocess.Popen([COMMAND, "index", "build", "small", "--force", "-q"], cwd=tmp_path)
        while building.poll() is None and texts_written(tmp_path / "small", started) <= part * whole:
            time.sleep(0.002)
        building.send_signal(signal.SIGKILL)
        inside += building.wait() == -signal.SIGKILL and texts_written(tmp_path / "small", started) > part * whole
        assert (
            json.loads(rankpipe("search", "small", "word5 word7", "--json").stdout)["rankings"]
            == json.loads(before)["rankings"]
        )
    assert inside >= 1
    rankpipe("index", "build", "small", "--force")
    assert len([*(tmp_path / "small" / "made").iterdir()]) == 1  # what the killed ones left is swept away


def test_filters_and_fields(rankpipe: Rankpipe, tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text(
        '{"_id": "a", "text": "tea cups", "metadata": {"year": 1999, "lang": ["en", "de"]}}\n'
        '{"_id": "b", "text": "tea", "year": 2020}\n{"_id": "c", "text": "tea leaves", "year": "2021"}\n'
    )
    for name in ("words", "more"):
        rankpipe("index", "build", name, "--data", "c.jsonl")
    done = rankpipe("search", "words", "tea", "--where", "year >= 2000", "--show", "year,lang", "--json")
    hits = json.loads(done.stdout)["rankings"][0]["hits"]
    assert [(h["docid"], h["fields"]) for h in hits] == [("b", {"year": [2020], "lang": []})]
    assert "words: 'year' is a text in 1 document, which does not meet year >= 2000" in done.stderr
    assert "no document" not in done.stderr
    done = rankpipe("search", "words", "tea", "--show", "yaer,lang")
    assert "words: no document has a field 'yaer'; did you mean year?" in done.stderr
    both = ("search", "words", "--with", "more", "tea", "--where", "not exists(yaer) and lang == de")
    done = rankpipe(*both, "--fuse", "minmax", "--weights", "2,1", "--show", "lang")
    assert "en, de" in done.stdout
    assert "2.0000" not in done.stdout
    assert "3.0000" in done.stdout  # each list has one hit, which is worth 1
    assert "more: no document has a field 'yaer'; did you mean year?" in done.stderr
    for words, code, said in (
        (("--where", "year >"), 2, "where: 'year >': at the end: expected a value"),
        (("--with", "more", "--weights", "2"), 2, "weights: 1 for 2 retrievers"),
        (("--with", "more", "--weights", "a,b"), 2, "--weights a,b: expected numbers"),
        (("--weights", "2"), 2, "--weights 2: there is nothing to fuse"),
    ):
        assert said in rankpipe("search", "words", "tea", *words, code=code).stderr
    (tmp_path / "d.jsonl").write_text('{"_id": "b", "text": "tea", "year": 1990}\n')
    rankpipe("index", "update", "words", "--data", "d.jsonl")
    rankpipe("index", "export", "words", "--out", "out.jsonl")
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {doc["_id"]: doc.get("metadata") for doc in written} == {
        "a": {"year": 1999, "lang": ["en", "de"]}, "b": {"year": 1990}, "c": {"year": "2021"},
    }  # fmt: skip


def test_help_is_quick_to_import() -> None:
    code = "import sys; sys.argv = ['rankpipe', '--help']\nfrom rankpipe.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "heavy = {'torch', 'faiss', 'numpy', 'scipy', 'bm25s'} & set(sys.modules); assert not heavy, heavy"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env={**os.environ})


def test_documents_come_to_an_index_as_it_was_built(rankpipe: Rankpipe, tiny_path: Path, tmp_path: Path) -> None:
    """Without titles, if that has none."""
    rankpipe("index", "build", "words", "--data", tiny_path, "--titles", "drop")
    for verb, word in (("add", "zebra"), ("update", "okapi")):
        (tmp_path / "more.jsonl").write_text(json.dumps({"_id": "new", "title": f"the {word}", "text": "striped"}))
        rankpipe("index", verb, "words", "--data", "more.jsonl")
        told = json.loads(rankpipe("search", "words", f"{word} striped", "--json").stdout)["rankings"][0]["hits"]
        assert ("new", "") in [(h["docid"], h.get("title", "")) for h in told]
        assert json.loads(rankpipe("search", "words", word, "--json").stdout)["rankings"][0]["hits"] == []


def test_kinds_have_the_names_that_people_know_them_by(rankpipe: Rankpipe, tiny_path: Path, tmp_path: Path) -> None:
    model = ("--set", "model=tests.retrieve.fakes:Hashed", "--set", "factory=Flat")
    rankpipe("index", "build", "vectors", "--data", tiny_path, "--use", "faiss", *model)
    assert json.loads(rankpipe("index", "info", "vectors", "--json").stdout)["kind"] == "dense"
    recipe = tmp_path / "vectors" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("use: dense", "use: faiss"))
    assert "is current" in rankpipe("index", "build", "vectors").stdout


def test_an_index_lives(rankpipe: Rankpipe, tiny_path: Path, tmp_path: Path) -> None:
    rankpipe("index", "build", "words", "--data", tiny_path)
    (tmp_path / "more.jsonl").write_text('{"_id": "new", "text": "a zebra crossing"}\n')
    assert "1 added; 21 documents" in rankpipe("index", "add", "words", "--data", "more.jsonl").stdout
    again = rankpipe("index", "add", "words", "--data", "more.jsonl", code=4)
    assert "1 of 1 documents are there already (new...)" in again.stderr
    (tmp_path / "more.jsonl").write_text('{"_id": "new", "text": "a zebra and an okapi"}\n{"_id": "b", "text": "x"}\n')
    assert "1 added, 1 replaced; 22" in rankpipe("index", "update", "words", "--data", "more.jsonl").stdout
    hits = json.loads(rankpipe("search", "words", "okapi zebra", "--json").stdout)["rankings"][0]["hits"]
    assert [(h["docid"], h["text"]) for h in hits] == [("new", "a zebra and an okapi")]
    (tmp_path / "gone.txt").write_text("new\nnobody\n")
    done = rankpipe("index", "delete", "words", "b", "--ids", "gone.txt")
    assert ("2 deleted; 20 documents" in done.stdout, "1 was not there: nobody" in done.stderr) == (True, True)
    told = json.loads(rankpipe("index", "info", "words", "--json").stdout)
    assert (told["documents"], told["batches"], told["kind"]) == (20, 3, "bm25")
    assert "20 documents" in rankpipe("index", "compact", "words").stdout
    assert "as they were written" in rankpipe("index", "verify", "words").stdout
    rankpipe("index", "export", "words", "--out", "out.jsonl")
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 20
    assert "building it anew loses" in rankpipe("index", "build", "words", code=6).stderr
    assert rankpipe("search", "words", "okapi").stdout.count("okapi") == 1  # the question
    rankpipe("index", "delete", "words", code=2)
    rankpipe("index", "build", "words", "--force", "--shard", "6")
    assert json.loads(rankpipe("index", "info", "words", "--json").stdout)["segments"] == 4
