import importlib.metadata
import sys
from pathlib import Path

import pytest

from rankpipe.catalog import CATALOG, EXTRAS, find, need, plugins, require
from rankpipe.errors import MissingExtra, RecipeError
from rankpipe.stage import Top


def test_finds_ours_and_others() -> None:
    assert find("top") is Top
    assert find("rankpipe.stage:Top") is Top


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bm52", "no component 'bm52'; did you mean bm25"),
        ("zzz", "no component 'zzz'$"),
        ("rankpipe.stage:Bottom", "no component 'rankpipe.stage:Bottom'.*Bottom"),
        ("no_such_package.x:Y", "No module named 'no_such_package'"),
    ],
)
def test_unknown_names_say_the_near_ones(name: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        find(name)


def test_a_module_that_lies_here_and_is_not_looked_for_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of the command ``rankpipe``, whose path begins where it lies itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path not in ("", str(tmp_path))])
    with pytest.raises(RecipeError, match=r"No module named 'my_own'$"):
        find("my_own:Encoder")
    Path("my_own.py").touch()
    with pytest.raises(RecipeError, match=r"; 'my_own' lies in this folder, where Python looks with PYTHONPATH=\. "):
        find("my_own:Encoder")


def test_another_package_adds_its_component(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "other-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[rankpipe]\nother-top = rankpipe.stage:Top\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert plugins()["other-top"] == "rankpipe.stage:Top"
    assert find("other-top") is Top


@pytest.mark.parametrize(
    ("name", "said"), [("galora", "did you mean galore or galore_adamw?"), ("recoded", "did you mean recorded?")]
)
def test_what_is_near_is_of_one_kind(name: str, said: str) -> None:
    with pytest.raises(RecipeError) as refused:
        find(name)
    assert refused.value.faults == [f"no component {name!r}; {said}"]


def test_a_missing_package_is_named_with_its_command() -> None:
    for call in (need, require):
        with pytest.raises(
            MissingExtra, match=r"x needs 'no_such', which is not installed: pip install 'rankpipe\[lm\]'"
        ):
            call("no_such", name="x", extra="lm")


def test_a_broken_package_is_not_taken_for_an_absent_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        need("broken_package", name="x", extra="lm")
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        find("broken_package:X")


def test_need_gives_the_module() -> None:
    assert need("json", name="x", extra="lm") is sys.modules["json"]


def test_every_extra_of_the_catalogue_is_declared() -> None:
    declared = set(importlib.metadata.metadata("rankpipe").get_all("Provides-Extra") or [])
    assert {e.extra for e in CATALOG.values() if e.extra} <= declared
    assert set(EXTRAS) <= declared
