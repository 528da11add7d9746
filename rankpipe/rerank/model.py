"""Which reranker a model is made for: by the table of models, or by what the model's own files say."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from rankpipe import weights
from rankpipe.catalog import find
from rankpipe.errors import ModelError, RecipeError
from rankpipe.onnx import read_json

BY_KIND = {
    "cross-encoder": "cross-encoder",
    "late interaction": "late",
    "sparse": "splade",
    "language model": "listwise",
}
BY_ARCHITECTURE = {  # as transformers calls them
    r"\w+ForSequenceClassification": "cross-encoder",
    r"\w+ForCausalLM": "listwise",
    r"(U?M)?T5ForConditionalGeneration": "monot5",
    r"\w+ForMaskedLM": "splade",
}
ADAPTER = "adapter_config.json"


def component(model: str, use: str | None = None, lm: str = "hf") -> dict[str, Any]:
    """The recipe node of the reranker that runs this model.

    A PEFT adapter's folder is put on top of the model that it names. An unknown language model reranks listwise, with
    RankZephyr's prompt.

    :param model: an alias, a Hugging Face id or a folder; on a server, what that calls it.
    :param use: this reranker, instead of the one that the model was made for.
    :param lm: what runs a language model: ``hf``, ``vllm``, or the URL of a server (``http://127.0.0.1:8000/v1``).
    :raises MissingWeights: If the model cannot be had.
    :raises ModelError: If nothing says what kind of model it is, or it is no reranker.
    :raises RecipeError: If the reranker takes no model.
    """
    served = "://" in lm
    base, more = (model, {}) if served else _adapted(model)
    node = {"use": use} if use else _made_for(base, served)
    takes = inspect.signature(find(node["use"])).parameters
    if "lm" in takes:
        runs = {"use": "http", "url": lm} if served else {"use": lm}
        return {**node, "lm": {**runs, "model": base, **more}}
    if "model" not in takes:
        raise RecipeError([f"{node['use']} takes no model; see: rankpipe ls"])
    if more:
        raise ModelError(
            f"{model}: an adapter, which {node['use']} does not take; merge it, and name the merged folder"
        )
    return {**node, "model": base}


def _adapted(model: str) -> tuple[str, dict[str, str]]:
    """An adapter's folder: the model it is put on, and the folder as an argument. Any other model: as it is."""
    folder = Path(model).expanduser()
    if base := read_json(folder / ADAPTER).get("base_model_name_or_path"):
        return base, {"adapter": str(folder.absolute())}
    return model, {}


def _made_for(model: str, served: bool) -> dict[str, Any]:
    known = weights.find(model)
    if known and known.rerank:
        return dict(known.rerank)
    if known and known.kind in BY_KIND:
        return {"use": BY_KIND[known.kind]}
    if known:
        raise ModelError(f"{model} is of the kind {known.kind!r}, which reranks nothing; see: rankpipe ls")
    return {"use": "listwise" if served else _by_config(model, weights.resolve(model))}


def _by_config(model: str, folder: Path) -> str:
    if (folder / "model.onnx").exists() and not (folder / "config.json").exists():
        return "cross-encoder"
    architectures = read_json(folder / "config.json").get("architectures") or []
    uses = [use for a in architectures for pattern, use in BY_ARCHITECTURE.items() if re.fullmatch(pattern, a)]
    if not uses:
        said = ", ".join(architectures) or "none"
        raise ModelError(f"{model}: its config.json names no architecture that reranks ({said}); say how with --use")
    return uses[0]
