"""The guides run as written; tables in documents are what the results say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rankpipe.measure.tables import rewrite

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(<!-- slow -->\n)?```(bash|python)\n(.*?)```", re.S)
GUIDES = sorted((ROOT / "docs").glob("guide-*.md"))
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def script(guide: Path, slow: bool) -> tuple[list[str], str]:
    """All blocks of a guide as one program, so that later ones go on from earlier ones."""
    found = BLOCK.findall(guide.read_text("utf-8"))
    blocks = [(kind, text) for mark, kind, text in found if slow or not mark]
    kinds = {kind for kind, _ in blocks}
    assert len(kinds) == 1, f"{guide} mixes languages"
    program = "\n".join(text for _, text in blocks)
    return (["bash", "-euo", "pipefail", "-c"] if kinds == {"bash"} else [sys.executable, "-c"]), program


def run(guide: Path, folder: Path, slow: bool) -> None:
    command, program = script(guide, slow)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [*command, program], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda p: p.stem)
def test_the_guide_runs_as_written(guide: Path, tmp_path: Path) -> None:
    run(guide, tmp_path, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("guide", [g for g in GUIDES if "<!-- slow -->" in g.read_text("utf-8")], ids=lambda p: p.stem)
def test_the_whole_guide_runs_as_written(guide: Path, tmp_path: Path) -> None:
    run(guide, tmp_path, slow=True)


@pytest.mark.slow
def test_the_pipeline_of_the_readme_runs_as_written(tmp_path: Path) -> None:
    [program] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_tables_are_what_the_results_say(path: Path) -> None:
    text = path.read_text("utf-8")
    assert rewrite(text, ROOT) == text, f"out of date: rankpipe tables {path.relative_to(ROOT)}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)", path.read_text("utf-8")):
        if "://" not in link:
            assert (path.parent / link).exists(), link
