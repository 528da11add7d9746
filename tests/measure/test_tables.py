"""Tables in documents, from result files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rankpipe.catalog import CATALOG
from rankpipe.errors import ArtefactError, DataError
from rankpipe.measure.results import Against, Cost, Result, SystemResult, Value, file
from rankpipe.measure.tables import figure, rewrite
from rankpipe.store import Data

BM25 = SystemResult(
    {"nDCG@10": Value(0.67624, 0.63, 0.72), "R@100": Value(1.0)},
    300,
    300,
    2,
    0,
    0.10049,
    "mean over all",
    (Cost("BM25", 0.0123),),
)
RESULT = Result(
    "scifact", "feed", Data("beir/scifact/test", "c0ffee" * 8), 0, {"bm25": BM25}, commit="0123456789ab",
    machine={"cpu": "Z80 | turbo", "cores": 2}, created="2026-01-02T03:04:05Z",
)  # fmt: skip


def test_a_room_of_the_catalogue(tmp_path: Path) -> None:
    text = "<!-- table: catalog rankpipe.train.heads *-head -->\n<!-- /table -->"
    made = rewrite(text, tmp_path)
    rows = [line.split(" | ")[0].strip("| ") for line in made.split("\n") if line.startswith("| `")]
    assert rows == [f"`{name}`" for name, e in CATALOG.items() if e.target.startswith("rankpipe.train.heads") and
                    name.endswith("-head")]  # fmt: skip
    assert rewrite(made, tmp_path) == made
    made = rewrite("<!-- table: catalog rankpipe.train.optimizers -->\n<!-- /table -->", tmp_path)
    assert "| `adamw`, `adamw_torch_fused` | AdamW, fused (torch) |" in made
    with pytest.raises(DataError, match="has nothing in"):
        rewrite("<!-- table: catalog rankpipe.trian -->\n<!-- /table -->", tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    file(RESULT, tmp_path / "eval" / "scifact")
    rows = [{"system": "ours", "queries_per_second": 1234.5678, "same": True}, {"system": "theirs", "hits": 3}]
    folder = tmp_path / "eval" / "bench" / "bm25" / "results"
    folder.mkdir(parents=True)
    (folder / "x.json").write_text(json.dumps({"created": "2026-02-01T00:00:00Z", "commit": "abc", "rows": rows}))
    return tmp_path


def text(words: str, inside: str = "old\n") -> str:
    return f"# Title\n\n<!-- table: {words} -->\n{inside}<!-- /table -->\n\nEnd."


def cells(written: str) -> list[list[str]]:
    return [[c.strip() for c in line.strip("|").split("|")] for line in written.split("\n") if line.startswith("| ")]


def test_what_the_stages_cost_together(root: Path) -> None:
    spent = (Cost("a", 1.0, 9.0, 18000.4, 810.0, 3, 0, 2), Cost("b", 0.5, 1.0, 20.0, 1.0, 1, 0, 0))
    file(replace(RESULT, systems={"x": replace(BM25, costs=spent)}), root / "eval" / "scifact")
    head, _, row = cells(rewrite(text("eval/scifact nDCG@10 calls tokens_in=tokens~in repaired skipped"), root))
    assert head[1:6] == ["nDCG@10", "calls", "tokens in", "repaired", "skipped"]
    assert row[2:6] == ["10", "18,020", "4", "2"]
    assert row[-1] == "1.5"


def test_a_table_of_an_experiment(root: Path) -> None:
    written = rewrite(text("eval/scifact"), root)
    head, _, row = cells(written)
    assert head[:3] == ["system", "nDCG@10", "R@100"]
    assert row[:4] == ["bm25", ".6762 [.6300, .7200]", "1.0000", ".1005"]
    assert "300 (2 missing)" in row
    assert "0.0123" in row
    for parent in ("beir/scifact/test (c0ffeec0ffee)", "recipe feed", "commit 0123456789ab", "2 cores", "2026-01-02"):
        assert parent in written
    assert written.startswith("# Title\n\n<!-- table: eval/scifact -->\n\n| ")
    assert written.endswith("<!-- /table -->\n\nEnd.")
    assert "old" not in written


def test_a_table_of_paired_tests(tmp_path: Path) -> None:
    against = {
        "dense": {"nDCG@10": Against(-0.0157, -0.03, 0.002, 0.04, 0.08, 0.0005, 0.001), "RR": Against(0.1, *[None] * 6)}
    }
    file(replace(RESULT, baseline="bm25", against=against), tmp_path / "eval" / "scifact")
    assert cells(rewrite(text("eval/scifact against"), tmp_path)) == [
        ["against bm25", "measure", "difference", "p, randomisation", "p, t-test", "p, randomisation, Holm"],
        ["---", *["---:"] * 5],
        ["dense", "nDCG@10", "-.0157 [-.0300, +.0020]", ".0005", ".0400", ".0010"],
        ["dense", "RR", "+.1000", "", "", ""],
    ]


def test_word_for_word(root: Path) -> None:
    other = replace(BM25, values={"nDCG@10": Value(0.5)}, missing=0, costs=())
    file(replace(RESULT, systems={"bm25": BM25, "other": other}), root / "eval" / "scifact")
    note = "commit 0123456789ab; seed 0; Z80 | turbo, 2 cores; 2026-01-02.*"
    assert rewrite(text("eval/scifact", ""), root).splitlines()[3:-3] == [
        "",
        "| system | nDCG@10 | R@100 | Judged@10 | queries | s/query |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| bm25 | .6762 [.6300, .7200] | 1.0000 | .1005 | 300 (2 missing) | 0.0123 |",
        "| other | .5000 |  | .1005 | 300 |  |",
        "",
        f"*95 % bootstrap intervals; mean over all; beir/scifact/test (c0ffeec0ffee); recipe feed; {note}",
        "",
    ]
    file(replace(RESULT, systems={"bm25": BM25, "other": replace(other, policy="else")}), root / "eval" / "scifact")
    assert "*95 % bootstrap intervals; beir/scifact/test" in rewrite(text("eval/scifact"), root)
    assert rewrite(text("eval/bench/bm25", ""), root).splitlines()[3:-3] == [
        "",
        "| system | queries per second | same | hits |",
        "| --- | ---: | ---: | ---: |",
        "| ours | 1,235 | yes |  |",
        "| theirs |  |  | 3 |",
        "",
        "*commit abc; 2026-02-01.*",
        "",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "yes"), (False, "no"), (None, ""), ("text", "text"), (0, "0"), (99, "99"), (12345678, "12,345,678"),
        (0.12345, "0.123"), (99.96, "100"), (123.4, "123"), (99999.5, "100,000"), (-1234.6, "-1,235"), (-0.5, "-0.5"),
    ],
)  # fmt: skip
def test_a_cell_of_a_benchmark(root: Path, value: object, shown: str) -> None:
    (root / "eval/bench/bm25/results/y.json").write_text(
        json.dumps({"created": "2026-03-01T00:00:00Z", "rows": [{"a": 1, "b": value}]})
    )
    assert cells(rewrite(text("eval/bench/bm25"), root))[-1] == ["1", shown]


def test_writing_again_changes_nothing(root: Path) -> None:
    written = rewrite(text("eval/scifact R@100") + text("eval/bench/bm25"), root)
    assert rewrite(written, root) == written


def test_columns_are_chosen_and_renamed(root: Path) -> None:
    head, _, row = cells(rewrite(text("eval/scifact R@100=recall~at~100"), root))
    assert head[:2] == ["system", "recall at 100"]
    assert row[:2] == ["bm25", "1.0000"]


def test_a_measure_with_an_argument_may_be_a_column(root: Path) -> None:
    values = {"R(rel=2)@100": Value(0.5), "RR(rel=2)@10": Value(0.25)}
    file(replace(RESULT, systems={"bm25": replace(BM25, values=values)}), root / "eval" / "scifact")
    head, _, row = cells(rewrite(text("eval/scifact R(rel=2)@100 RR(rel=2)@10=MRR"), root))
    assert (head[1:3], row[1:3]) == (["R(rel=2)@100", "MRR"], [".5000", ".2500"])


def test_a_newer_result_changes_the_table(root: Path) -> None:
    before = rewrite(text("eval/scifact"), root)
    changed = replace(BM25, values={"nDCG@10": Value(0.5)})
    file(
        replace(RESULT, commit="newer", created="2026-05-05T00:00:00Z", systems={"bm25": changed}),
        root / "eval/scifact",
    )
    after = rewrite(before, root)
    assert after != before
    assert ".5000" in after


def test_a_system_without_a_measure_has_an_empty_cell(root: Path) -> None:
    systems = {"bm25": BM25, "other": replace(BM25, values={"nDCG@10": Value(0.5)}, costs=())}
    file(replace(RESULT, systems=systems), root / "eval" / "scifact")
    assert cells(rewrite(text("eval/scifact R@100"), root))[3][:2] == ["other", ""]


def test_a_table_of_a_benchmark(root: Path) -> None:
    head, _, ours, theirs = cells(rewrite(text("eval/bench/bm25"), root))
    assert head == ["system", "queries per second", "same", "hits"]
    assert ours == ["ours", "1,235", "yes", ""]
    assert theirs == ["theirs", "", "", "3"]
    head, *_ = cells(rewrite(text("eval/bench/bm25 system queries_per_second=queries/s"), root))
    assert head == ["system", "queries/s"]


def test_bars_in_cells_do_not_break_the_table(root: Path) -> None:
    (root / "eval/bench/bm25/results/y.json").write_text(
        json.dumps({"created": "2026-03-01T00:00:00Z", "rows": [{"a": "x | y"}]})
    )
    written = rewrite(text("eval/bench/bm25"), root)
    assert "| x \\| y |" in written
    assert "\n*2026-03-01.*\n" in written


@pytest.mark.parametrize(
    ("written", "says"),
    [
        (text("eval/scifact nDCG@1"), "line 3: the result has no 'nDCG@1'; did you mean nDCG@10"),
        ("a\n<!-- table: eval/scifact -->\nrest", "line 2: this table is not closed"),
        ("<!-- table: eval/scifact -->\n" + text("eval/scifact"), "line 1: this table is not closed"),
        (text("eval/bench/bm25 sytem"), "line 3: the result has no 'sytem'; did you mean system"),
    ],
)
def test_faults_say_the_line(root: Path, written: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        rewrite(written, root)


def test_no_result(root: Path) -> None:
    with pytest.raises(ArtefactError, match="no results here"):
        rewrite(text("eval/nothing"), root)


def test_figures() -> None:
    shown = [figure(x) for x in (0.67624, 1, 0, -0.05, 12.5, 0.99996)]
    assert shown == [".6762", "1.0000", ".0000", "-.0500", "12.5000", "1.0000"]
    assert figure(0.0157, sign="+") == "+.0157"
