"""Which room may touch which, and how big a room may be. The walls of the house, as a test."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "rankpipe"
GROUND = {
    "data", "errors", "stage", "catalog", "recipe", "store", "trec", "progress", "weights", "onnx", "st", "provenance",
    "builds", "device", "disk", "lines", "where", "threads", "engine", "aside", "seen", "manifest",
}  # fmt: skip
MODELS = {"colbert", "splade"}  # models that retrieve and rerank share
MAY = {  # room: what it may import from rankpipe, at any depth of the file
    "data": set(),
    "errors": set(),
    "progress": set(),
    "stage": {"data", "errors", "progress"},
    "catalog": {"errors"},
    "recipe": {"catalog", "errors", "provenance", "signature"},
    "signature": {"catalog"},
    "disk": {"errors"},
    "builds": {"disk", "errors", "progress"},
    "seen": {"disk", "errors", "progress"},
    "store": {"builds", "disk", "errors", "manifest", "progress", "provenance", "seen"},
    "manifest": set(),
    "provenance": set(),
    "aside": set(),
    "engine": {"aside", "catalog", "disk", "errors"},
    "java": {"catalog", "errors"},
    "trec": {"data", "disk", "errors"},
    "lines": {"disk", "errors"},
    "journal": {"data", "errors", "lines", "progress", "stage"},
    "weights": {"catalog", "disk", "errors", "seen", "store", "progress"},
    "threads": set(),
    "onnx": {"catalog", "errors", "progress", "threads", "weights"},
    "st": {"catalog", "device", "errors", "onnx", "weights"},
    "device": {"catalog"},
    "where": {"errors"},
    "colbert": {"errors", "onnx", "st", "weights"},
    "splade": {"catalog", "device", "lm", "onnx", "st", "weights"},
    "lm": GROUND,
    "datasets": GROUND,
    "retrieve": GROUND | MODELS | {"datasets", "java", "lm"},
    "rerank": GROUND | MODELS | {"datasets", "lm"},
    "train": GROUND | {"datasets", "lm", "rerank", "retrieve", "measure", "journal"},
    "measure": GROUND | {"datasets", "retrieve", "journal"},
    "__init__": {"data", "stage"},
}
FILES = sorted(p for p in ROOT.rglob("*.py"))


def room(path: Path) -> str:
    rel = path.relative_to(ROOT)
    return rel.parts[0] if len(rel.parts) > 1 else rel.stem


def touched(tree: ast.Module) -> Iterator[str]:
    """Rooms imported; what is imported for type checking only does not count."""
    typing_only = {
        id(n)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for n in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rankpipe":
            parts = (node.module or "").split(".")
            yield from [parts[1]] if len(parts) > 1 else [a.name for a in node.names]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("rankpipe."))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_room(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    if room(path) != "cli":
        rooms = {m.stem for m in ROOT.glob("*.py")} | {m.name for m in ROOT.iterdir() if m.is_dir()}
        assert set(touched(tree)) & rooms - {room(path)} <= MAY[room(path)]
    assert len(path.read_text("utf-8").splitlines()) <= 300
    for n in ast.walk(tree):
        if isinstance(n, ast.FunctionDef):
            assert (n.end_lineno or 0) - n.lineno < 60, n.name
            most = 15 if room(path) == "cli" else 10  # a verb's arguments are its options
            assert len(n.args.args) + len(n.args.kwonlyargs) <= most, n.name


def test_only_the_command_line_prints() -> None:
    for path in FILES:
        if room(path) != "cli":
            calls = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call)]
            assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"], path


def test_no_broad_except() -> None:
    """But for the one place where the command line tells a bug."""
    for path in set(FILES) - {ROOT / "cli" / "show.py"}:
        for n in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(n, ast.ExceptHandler):
                assert n.type is not None, path
                assert not (isinstance(n.type, ast.Name) and n.type.id == "Exception"), path
