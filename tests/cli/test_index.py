"""What building an index says, before and when it does not come to its end."""

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import copyfile, copytree

import pytest
from typer.testing import CliRunner, Result

from rankpipe import store
from rankpipe.cli import app, changes, index, options, search
from rankpipe.data import Doc
from rankpipe.datasets import Dataset
from rankpipe.datasets.records import Jsonl
from rankpipe.engine import Local
from rankpipe.errors import CommandError
from rankpipe.manifest import Manifest
from rankpipe.retrieve import approximate, embedded, forecast, rescue, shelf
from rankpipe.retrieve.bm25 import BM25
from rankpipe.retrieve.dense import Dense
from rankpipe.retrieve.sparse import SparseIndex

assert index.build  # registers its verbs
assert changes.delete
assert search.search


def said(*words: str) -> str:
    """What a command that does well writes."""
    done = CliRunner().invoke(app, [*words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_line_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "WORTH", 100)
    docs = [Doc(f"d{i}", f"fox number{i % 700}") for i in range(500)]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"id": d.id, "text": d.text}) + "\n" for d in docs))
    build = ["index", "build", str(tmp_path / "index"), "--data", str(corpus)]
    made = CliRunner().invoke(app, [*build, "--memory", "1GB"])
    assert made.exit_code == 0, made.output
    assert "500 documents: about" in made.stderr
    again = CliRunner().invoke(app, [*build, "--force", "--json"])
    told = json.loads(again.stdout)
    assert told["forecast"]["documents"] == told["documents"] == 500
    assert "memory_bytes" not in told
    bad = CliRunner().invoke(app, [*build, "--force", "--memory", "1KB"])
    assert "memory: '1KB'; expected 256 MB or more" in bad.stderr


def test_the_recall_of_approximate_search_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, chance = tmp_path / "corpus.jsonl", random.Random(0)
    texts = (" ".join(chance.choices("abcdefghijklmnop", k=12)) for _ in range(400))
    corpus.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)))
    build = ["index", "build", str(tmp_path / "index"), "--data", str(corpus), "--use", "dense", "--force"]
    build += ["--set", "model=tests.retrieve.fakes:Drawn"]
    assert "searched exactly" in CliRunner().invoke(app, [*build, "--recall", "0.9"]).stderr
    monkeypatch.setattr(embedded, "LEAST", 300)
    monkeypatch.setattr(approximate, "cores", lambda: 1)
    made = CliRunner().invoke(app, [*build, "--recall", "0.9"])
    told = json.loads((tmp_path / "index" / "manifest.json").read_text())["facts"]
    assert (told["factory"], told["recall_at_10"] >= 0.9) == ("HNSW32", True)
    for nearest in (10, 100):
        assert f"{told[f'recall_at_{nearest}']:.3f} of the {nearest} nearest" in made.stdout
    shown = CliRunner().invoke(app, ["index", "info", str(tmp_path / "index")]).stdout
    assert "factory=HNSW32" in shown
    assert "factory=exact" not in shown
    assert f"{told['recall_at_10']:.3f} of the 10 nearest" in shown
    poor = CliRunner().invoke(app, [*build, "--recall", "1", "--set", "factory=PQ2x4"])
    assert "PQ2x4 does not reach the recall 1" in poor.stderr
    wrong = CliRunner().invoke(app, [*build, "--recall", "1.5"])
    assert "recall: 1.5; expected more than 0, at most 1" in wrong.stderr


def test_info_lists_the_fields(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text(
        '{"_id": "a", "text": "tea cups", "year": 1999, "lang": ["en", "de"]}\n'
        '{"_id": "b", "text": "tea", "year": "2020"}\n{"_id": "c", "text": "leaves", "year": [2021, "2021"]}\n'
    )
    words = str(tmp_path / "words")
    assert CliRunner().invoke(app, ["index", "build", words, "--data", str(tmp_path / "c.jsonl")]).exit_code == 0
    told = json.loads(CliRunner().invoke(app, ["index", "info", words, "--json"]).stdout)
    assert told["fields"] == {"lang": {"documents": 1, "text": 1}, "year": {"documents": 3, "text": 2, "number": 2}}
    assert "│year  │ text 2, number 2 │         3│" in CliRunner().invoke(app, ["index", "info", words]).stdout


def test_info_names_what_is_in_an_object(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text(
        '{"_id": "a", "text": "tea", "venue": {"name": "X", "at": {"city": "Y"}}, "open": true}\n'
        '{"_id": "b", "text": "tea", "venue": {"name": "Z"}, "many": ' + str(list(range(101))) + "}\n"
    )
    words = str(tmp_path / "words")
    assert CliRunner().invoke(app, ["index", "build", words, "--data", str(tmp_path / "c.jsonl")]).exit_code == 0
    assert json.loads(CliRunner().invoke(app, ["index", "info", words, "--json"]).stdout)["fields"] == {
        "many": {"documents": 1, "value too long or too deep to compare": 1},
        "open": {"documents": 1, "boolean": 1},
        "venue": {"documents": 2, "object": 2},
        "venue.at": {"documents": 1, "object": 1},
        "venue.at.city": {"documents": 1, "text": 1},
        "venue.name": {"documents": 2, "text": 2},
    }
    said = " ".join(CliRunner().invoke(app, ["index", "info", words]).stdout.split())
    assert "object 1 (has venue.at.city)" in said
    odd = CliRunner().invoke(app, ["search", words, "tea", "--where", "venue == X"])
    assert "'venue' is an object, compare what is in it: venue.at, venue.at.city, venue.name" in odd.stderr


def test_one_is_not_many(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"_id": "a", "text": "tea"}\n{"_id": "b", "text": "tea"}\n')
    words, ran = str(tmp_path / "words"), CliRunner().invoke
    build = ["index", "build", words, "--data", str(tmp_path / "c.jsonl")]
    assert ran(app, build).exit_code == 0
    assert "1 was not there: z" in ran(app, ["index", "delete", words, "a", "z"]).stderr
    assert "changed once since" in ran(app, build).stderr
    assert "2 were not there: y, z" in ran(app, ["index", "delete", words, "y", "z"]).stderr
    assert "changed once since" in ran(app, build).stderr  # nothing was
    ran(app, ["index", "delete", words, "b"])
    assert "changed 2 times since" in ran(app, build).stderr


def test_how_an_index_is_searched_is_set(tiny_path: Path, tmp_path: Path) -> None:
    def ran(*words: str) -> Result:
        return CliRunner().invoke(app, words)

    fake = ("--use", "dense", "--set", "model=tests.retrieve.fakes:Drawn", "--set", "factory=IVF4,Flat", "-q")
    words, vectors = str(tmp_path / "words"), str(tmp_path / "vectors")
    assert ran("index", "build", words, "--data", str(tiny_path)).exit_code == 0
    assert ran("index", "build", vectors, "--data", str(tiny_path), *fake).exit_code == 0
    for more in ([], ["--with", words]):
        hits = [
            len(
                json.loads(ran("search", vectors, *more, "tide", "--set", f"nprobe={n}", "--json").stdout)["rankings"][
                    0
                ]["hits"]
            )
            for n in (1, 4)
        ]
        assert hits[0] < hits[1] == 10 or more
    for said, told in (
        ("efSearch=3", f"--set efSearch: no such argument; {vectors} has device, nprobe; {words} has k1, b"),
        ("nprobes=3", "--set nprobes: no such argument; did you mean nprobe?"),
        ("k=3", "--set k: no such argument; did you mean k1?"),
        ("x=3", f"--set x: no such argument; {vectors} has device, nprobe; {words} has k1, b"),
        ("nprobe=many", f"{vectors}: dense: nprobe: 'many' is a str, expected int | None"),
        ("nprobe=0", f"{vectors}: nprobe: 0; expected 1 or more"),
        ("nprobe", "--set nprobe: expected KEY=VALUE"),
    ):
        made = ran("search", vectors, "--with", words, "tide", "--set", said)
        assert told in " ".join(made.stderr.split())
    plain, other = (ran("search", words, "tide", *more, "--json").stdout for more in ([], ["--set", "k1=2"]))
    assert plain != other
    assert "k1: -1.0; expected 0 or more" in ran("search", words, "tide", "--set", "k1=-1.0").stderr


def test_of_fused_indexes_each_takes_what_it_knows(
    tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of one kind: FAISS has made a graph of one, and nothing of the other."""
    monkeypatch.chdir(tmp_path)
    for name, factory in (("graph", "HNSW8"), ("exact", "exact")):
        Dense.build(tiny, Path(name), model="tests.retrieve.fakes:Drawn", factory=factory)
    SparseIndex.build(tiny, Path("sparse"), model="tests.retrieve.models:Weights")
    for folders in (("graph", "exact"), ("exact", "graph")):
        made = CliRunner().invoke(app, ["search", folders[0], "--with", folders[1], "tide", "--set", "efSearch=64"])
        assert (made.exit_code, "--set efSearch: is for graph, not for exact" in made.stderr) == (0, True), made.output
    assert "is for" not in CliRunner().invoke(app, ["search", "graph", "tide", "--set", "efSearch=64"]).stderr
    with pytest.raises(CommandError, match="no such argument; exact has device; sparse has nothing to set"):
        search._dealt([Path("exact"), Path("sparse")], ["efSearch=2"])


@pytest.mark.parametrize("engine", [None, Local()])
def test_indexes_that_drifted_apart_are_told(
    engine: Local | None, tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where an engine searches them."""
    runner, words, more = CliRunner(), str(tmp_path / "words"), str(tmp_path / "more")
    for folder in (words, more):
        runner.invoke(app, ["index", "build", folder, "--data", str(tiny_path)])
    asked = ["search", words, "--with", more, "tide"]
    assert "not of the same documents" not in runner.invoke(app, asked).stderr
    n = len(BM25(Path(more)))
    runner.invoke(app, ["index", "delete", more, next(BM25(Path(more)).documents()).id])
    monkeypatch.setattr(options, "engine", lambda *_: engine)
    told = "".join(runner.invoke(app, [*asked, "--where", "year > 3", "--show", "lang"]).stderr.split())
    assert f"howmanyeachhas:{words}{n},{more}{n - 1}" in told
    for folder in (words, more):
        assert f"{folder}:nodocumenthasafield'year'" in told
        assert f"{folder}:nodocumenthasafield'lang'" in told


def test_who_interrupts_hears_how_to_go_on(tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Jsonl) -> Iterator[Doc]:
        yield from begun
        raise KeyboardInterrupt

    monkeypatch.setattr(Jsonl, "docs", interrupted)
    monkeypatch.setattr("sys.argv", ["rankpipe", "index", "build", "my words", "--data", "x"])
    for begun, said in (([Doc("a", "tea")], "to go on from there: rankpipe index build 'my words' --data x"), ([], "")):
        made = CliRunner().invoke(app, ["index", "build", str(tmp_path / f"w{len(begun)}"), "--data", str(tiny_path)])
        assert made.exit_code == 130
        assert (said or "nothing is half-written") in made.stderr
        assert ("to go on" in made.stderr) == bool(begun)


def judged(folder: Path, *splits: str) -> Path:
    """A BEIR folder of one document, with these splits."""
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "a", "text": "tea one"}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "tea"}\n')
    for split in splits:
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\nq\ta\t1\n")
    return folder


@pytest.mark.parametrize("said", [[], ["--split", "dev"]])
def test_documents_need_no_judgements(said: list[str], tmp_path: Path) -> None:
    data, words = judged(tmp_path / "data", "dev"), str(tmp_path / "words")
    for verb in ("build", "update", "add"):
        done = CliRunner().invoke(app, ["index", verb, words, "--data", str(data), *(said if verb == "build" else ())])
        assert done.exit_code == 0, done.output
        if verb == "build":
            assert "is current" in CliRunner().invoke(app, ["index", "build", words]).stdout
        (data / "corpus.jsonl").write_text(f'{{"_id": "{verb}", "text": "tea two"}}\n')
    assert [d.id for d in BM25(Path(words)).documents()] == ["a", "build", "update"]
    (Path(words) / "recipe.yaml").write_text(
        f"data: {data}\nsplit: train\nindex: {{use: bm25}}\n"
    )  # of earlier versions
    assert CliRunner().invoke(app, ["index", "build", words, "--force"]).exit_code == 0
    twice = CliRunner().invoke(app, ["index", "build", words, "--split", "dev"])
    assert (twice.exit_code, "--split" in twice.stderr) == (2, True)
    refused = CliRunner().invoke(app, ["index", "build", f"{words}2", "--data", str(data), "--split", "tset"])
    assert (refused.exit_code, "no split 'tset'; it has dev" in refused.stderr) == (4, True)
    assert not Path(f"{words}2").exists()


def test_documents_that_may_have_changed_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, words, read = judged(tmp_path / "data", "test"), tmp_path / "words", list[Path]()
    checksum = Jsonl.checksum
    monkeypatch.setattr(Jsonl, "checksum", lambda self: read.append(self.path) or checksum(self))  # type: ignore[func-returns-value]
    monkeypatch.setenv("RANKPIPE_CACHE", str(tmp_path / "cache"))
    old, late = (time.time() + seconds for seconds in (-100, 100))
    for path in data.rglob("*.*"):
        os.utime(path, (old, old))
    CliRunner().invoke(app, ["index", "build", str(words), "--data", str(data)])
    assert len(read) == 1
    for path in (data / "queries.jsonl", data / "qrels" / "test.tsv"):
        os.utime(path, (late, late))
    assert (shelf.outdated(words), len(read)) == (False, 1)
    os.utime(data / "corpus.jsonl", (late, late))
    assert [shelf.outdated(words) for _ in range(3)] == [False] * 3
    assert len(read) == 2
    (data / "corpus.jsonl").write_text('{"_id": "a", "text": "tea two"}\n')
    os.utime(data / "corpus.jsonl", (late, late + 1))
    assert [shelf.outdated(words) for _ in range(3)] == [True] * 3
    assert len(read) == 3


@pytest.mark.parametrize("words", [("verify",), ("export", "--out", "out.jsonl")])
def test_what_a_writer_replaces_meanwhile_is_not_damaged(
    words: tuple[str, ...], tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said("index", "build", "words", "--data", str(tiny_path))
    module, name = (rescue, "damaged_texts") if words[0] == "export" else (store, "damages")
    look, batches = getattr(module, name), iter([Doc("new", "a zebra")])

    def late(manifest: Manifest) -> object:
        for doc in batches:
            BM25(Path("words")).add([doc])
        return look(manifest)

    monkeypatch.setattr(module, name, late)
    said("index", words[0], "words", *words[1:])
    assert words[0] != "export" or "a zebra" in Path("out.jsonl").read_text()


def test_ids_in_a_file_have_any_character_but_a_new_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    odd = ["a\u2028b", "c\x0bd", " ", "e\x85", "f\rg"]
    BM25.build(Dataset.of([Doc(i, "tea") for i in (*odd, "left")]), Path("words"))
    Path("gone").write_bytes("\r\n".join([*odd, ""]).encode())
    assert "5 deleted; 1 document" in said("index", "delete", "words", "--ids", "gone")


def test_an_index_of_another_collection_than_its_queries_is_told(tmp_path: Path, tiny_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"id": "fox", "text": "water, tea and the moon"}) + "\n")
    said("index", "build", str(tmp_path / "other"), "--data", str(tmp_path / "corpus.jsonl"))
    copied = copytree(tiny_path, tmp_path / "copied")
    said("index", "build", str(tmp_path / "same"), "--data", str(copied))

    def told(*words: str) -> str:
        return " ".join(CliRunner().invoke(app, ["search", *words]).stderr.split())

    asked = ("--data", str(tiny_path), "-k", "1")
    assert "judged documents of tiny/test; is it an index of this collection?" in told(str(tmp_path / "other"), *asked)
    assert "judged documents" not in told(str(tmp_path / "same"), *asked)
    assert "judged documents" not in told(str(tmp_path / "other"), "tea")


def test_a_broken_recipe_is_no_dead_end(tmp_path: Path, tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    build = ("index", "build", "words", "--data", str(tiny_path))
    said(*build)
    Path("more.jsonl").write_text('{"_id": "new", "text": "tea"}\n')
    recipe = Path("words/recipe.yaml")
    whole = recipe.read_text()
    assert "as they were written" in said("index", "verify", "words")
    for broken, what in (("data: [x\n", "not YAML"), ("", "is a mapping"), ("data: x\n", "no key 'index'")):
        recipe.write_text(broken)
        verified = CliRunner().invoke(app, ["index", "verify", "words"])
        assert (verified.exit_code, what in verified.stderr) == (6, True)
        assert "build it again" not in verified.stderr  # the index is whole
    for words in (("index", "add", "words", "--data", "more.jsonl"), ("index", "build", "words"), build):
        recipe.write_text("data: [x\n")
        refused = CliRunner().invoke(app, [*words])
        assert refused.exit_code == 4
        assert "bring back a copy; or remove it" in refused.stderr
        assert "rankpipe index build words --data ... --force" in refused.stderr
        assert recipe.read_text() == "data: [x\n"
    said("search", "words", "tide")
    said(*build, "--force")
    assert recipe.read_text() == whole
    recipe.unlink()
    recipe.mkdir()
    for words, code in ((("index", "verify", "words"), 6), (build, 4)):
        refused = CliRunner().invoke(app, [*words])
        assert (refused.exit_code, "recipe.yaml: is a folder, not a recipe" in refused.stderr) == (code, True)
    recipe.rmdir()
    said("index", "add", "words", "--data", "more.jsonl")


def test_a_damaged_copy_of_the_manifest_is_told(tmp_path: Path, tiny_path: Path) -> None:
    words = str(tmp_path / "words")
    said("index", "build", words, "--data", str(tiny_path))
    [spare] = tmp_path.glob("words/made/*/.manifest.json")
    spare.write_bytes(spare.read_bytes()[:-9])
    told = CliRunner().invoke(app, ["index", "verify", words, "--json"])
    [damage] = json.loads(told.stdout)["damages"]
    assert (told.exit_code, damage.endswith(f"cp {words}/manifest.json {spare}")) == (6, True)
    copyfile(tmp_path / "words" / "manifest.json", spare)
    said("index", "verify", words)


def test_a_file_without_documents_is_a_mistake(tmp_path: Path, tiny_path: Path) -> None:
    words, empty = str(tmp_path / "words"), tmp_path / "empty.jsonl"
    said("index", "build", words, "--data", str(tiny_path))
    empty.write_text("")
    before = store.read_manifest(words).build
    for verb in ("add", "update"):
        told = CliRunner().invoke(app, ["index", verb, words, "--data", str(empty)])
        assert (told.exit_code, f"{empty}: no documents in it" in told.stderr) == (4, True)
    assert store.read_manifest(Path(words)).build == before


def test_documents_are_got_by_their_ids(tmp_path: Path) -> None:
    corpus, words = tmp_path / "c.jsonl", str(tmp_path / "words")
    corpus.write_text('{"_id": "a", "text": "tea", "year": 3}\n{"_id": "b", "title": "T", "text": "wine"}\n')
    said("index", "build", words, "--data", str(corpus))
    assert said("index", "get", words, "b", "a").splitlines() == [
        '{"_id": "b", "title": "T", "text": "wine"}',
        '{"_id": "a", "title": "", "text": "tea", "metadata": {"year": 3}}',
    ]
    assert [doc["_id"] for doc in json.loads(said("index", "get", words, "b", "--json"))] == ["b"]
    lost = CliRunner().invoke(app, ["index", "get", words, "a", "zzz"])
    assert (lost.exit_code, lost.stdout) == (4, "")
    assert "1 document of 2 not there: 'zzz'" in " ".join(lost.stderr.split())


def test_arguments_out_of_range_are_refused_before_documents_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.jsonl").write_text('{"_id": "a", "text": "tea"}\n')
    monkeypatch.setattr(Jsonl, "checksum", None)
    monkeypatch.setattr(Jsonl, "docs", None)
    build = ["index", "build", str(tmp_path / "words"), "--data", str(tmp_path / "c.jsonl")]
    for more, told in (
        (["--set", "k1=-1"], "k1: -1; expected 0 or more"),
        (["--use", "dense", "--recall", "2", "--set", "store=int4"], "store: 'int4' is not one of"),
    ):
        refused = CliRunner().invoke(app, [*build, *more])
        assert (refused.exit_code, told in " ".join(refused.stderr.split())) == (2, True), refused.output
    assert not (tmp_path / "words").exists()
