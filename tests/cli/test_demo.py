"""What the demo says, without the minutes that it takes."""

import shutil
from pathlib import Path

import pytest
import yaml

from rankpipe.cli.demo import EXPLAINED, _parts
from rankpipe.cli.experiments import experiment
from rankpipe.measure.experiment import Experiment


def test_each_part_says_how_long_it_takes() -> None:
    with_llm, without = _parts(with_llm=True), _parts(with_llm=False)
    assert [part[: part.index(":")] for part in with_llm] == ["part 1 of 3", "part 2 of 3", "part 3 of 3"]
    assert all("; about" in part for part in with_llm)
    assert "language model" in with_llm[-1]
    assert "language model" not in without[-1]


def test_a_table_is_explained_under_it(
    tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_path, "mine")
    index, run = Path("indexes/words"), Path("eval/mine")
    systems = {"bm25": [{"use": "bm25", "index": str(index)}]}
    for folder, recipe in ((index, {"index": {"use": "bm25"}}), (run, {"systems": systems})):
        folder.mkdir(parents=True)
        (folder / "recipe.yaml").write_text(yaml.safe_dump({"data": "mine", **recipe}))
    experiment(Experiment(run), report=False, examples=1, explained=EXPLAINED)
    said = " ".join(capsys.readouterr().out.split())
    table, explained, hits = (said.index(part) for part in ("nDCG@10", EXPLAINED, "score"))
    assert table < explained < hits
