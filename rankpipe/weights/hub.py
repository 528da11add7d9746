"""Models of the Hugging Face hub: its own cache first, then a download. Honours ``HF_HOME``, ``HF_HUB_OFFLINE``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from rankpipe.catalog import need
from rankpipe.errors import MissingWeights
from rankpipe.weights.graphfiles import graph, picked

ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")  # owner/name, with an optional revision
FORMS = ("*.safetensors", "*.bin")
CONFIGS = ("config.json", "adapter_config.json")  # a model's, a PEFT adapter's
SKIPPED = ["*.h5", "*.msgpack", "*.ot", "*.onnx*", "openvino/*", "coreml/*", "original/*"]  # other forms of the same


def is_id(name: str) -> bool:
    """Whether this could be a model of the hub."""
    return ID.fullmatch(name) is not None


def cached(name: str) -> Path | None:
    """The folder of this model in the hub's cache; None if it is not there, or not wholly."""
    repo, _, revision = name.partition("@")
    found = (_hub().try_to_load_from_cache(repo, config, revision=revision or None) for config in CONFIGS)
    folder = next((Path(f).parent for f in found if isinstance(f, str)), None)
    return folder if folder and (whole(folder) or graph(folder)) else None


def download(name: str) -> Path:
    """Fetch a model into the hub's cache; weights as safetensors where the model has them, an ONNX graph where it has
    nothing else.

    :raises MissingWeights: If the hub cannot be reached, has no such model, or does not give it to this user.
    """
    hub = _hub()
    repo, _, revision = name.partition("@")
    how = {"revision": revision or None}
    if hub.constants.HF_HUB_OFFLINE:
        raise MissingWeights(f"{name} is not in the hub's cache, and HF_HUB_OFFLINE is set: {cure(name)}")
    folder = Path()
    try:
        for skipped in ([*SKIPPED, "*.bin"], SKIPPED):  # most have both, and one is enough
            folder = Path(hub.snapshot_download(repo, ignore_patterns=skipped, **how))
            if whole(folder):
                return folder
        names = hub.HfApi().list_repo_files(repo, **how)
        if wanted := picked(names):
            others = [form for form in SKIPPED if "onnx" not in form]
            others += [f"{name}*" for name in names if name.endswith(".onnx") and name != wanted]
            return Path(hub.snapshot_download(repo, ignore_patterns=[*FORMS, *others], **how))
    except (OSError, *hub.errors.HfHubHTTPError.__bases__) as error:  # of which one is the HTTP library's own
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MissingWeights(f"{name}: the hub did not give it ({said}): {cure(name)}") from error
    raise MissingWeights(f"{name}: the hub has no weights for it in a form that is read here ({', '.join(FORMS)})")


def cure(name: str) -> str:
    """How to get a model when the hub cannot be reached."""
    repo = name.partition("@")[0]
    return (
        f"on a machine that reaches it, run: hf download {repo} --local-dir FOLDER; bring the folder here and "
        "name its path instead"
    )


def whole(folder: Path) -> bool:
    """Whether every file of weights that the index names is there; without an index, whether there is one."""
    for index in (*folder.glob("*.safetensors.index.json"), *folder.glob("*.bin.index.json")):
        parts = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        return all((folder / part).exists() for part in parts)
    return any([*folder.glob(form), *folder.glob(f"0_*/{form}")] for form in FORMS)


def _hub() -> Any:
    return need("huggingface_hub", name="a model of the hub", extra="lm")
