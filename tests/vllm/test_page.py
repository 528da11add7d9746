"""The page about vLLM runs as written."""

from __future__ import annotations

from pathlib import Path

from rankpipe.trec import read_run
from tests.walls.test_docs import ROOT, run


def test_the_page_runs_as_written(smollm2: Path, tmp_path: Path) -> None:
    run(ROOT / "docs" / "vllm.md", tmp_path, slow=False)
    for name in ("first-token", "listwise"):
        assert {*read_run(tmp_path / f"{name}.trec").run["q1"]} == {"tea", "bike", "bread"}
