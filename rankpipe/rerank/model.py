"""Which reranker a model is made for: by the table of models, or by what the model's own files say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rankpipe import weights
from rankpipe.errors import ModelError
from rankpipe.onnx import read_json

BY_KIND = {
    "cross-encoder": "cross-encoder",
    "late interaction": "late",
    "sparse": "sparse",
    "language model": "listwise",
}
BY_HEAD = {  # what transformers calls the head of a model: "LlamaForCausalLM"
    "SequenceClassification": "cross-encoder",
    "CausalLM": "listwise",
    "ConditionalGeneration": "monot5",
    "MaskedLM": "sparse",
}


def component(model: str) -> dict[str, Any]:
    """The recipe node of the reranker that runs this model.

    A PEFT adapter's folder is put on top of the model that it names. An unknown language model reranks listwise, with
    RankZephyr's prompt.

    :param model: an alias, a Hugging Face id or a folder.
    :raises MissingWeights: If the model cannot be had.
    :raises ModelError: If nothing says what kind of model it is, or it is no reranker.
    """
    known = weights.find(model)
    if known and known.rerank:
        return _made(known.rerank["use"], model, {k: v for k, v in known.rerank.items() if k != "use"})
    if known and known.kind in BY_KIND:
        return _made(BY_KIND[known.kind], model, {})
    if known:
        raise ModelError(f"{model} is of the kind {known.kind!r}, which reranks nothing; see: rankpipe ls")
    folder = weights.resolve(model)
    if base := read_json(folder / "adapter_config.json").get("base_model_name_or_path"):
        made = component(base)
        return {**made, "lm": {**made["lm"], "adapter": str(folder)}} if "lm" in made else _no_adapter(model, base)
    return _made(BY_HEAD[_head(model, folder)], model, {})


def _made(use: str, model: str, options: dict[str, Any]) -> dict[str, Any]:
    lm = use in ("listwise", "first", "pointwise", "upr")
    return {"use": use, **({"lm": {"use": "hf", "model": model}} if lm else {"model": model}), **options}


def _head(model: str, folder: Path) -> str:
    if (folder / "model.onnx").exists() and not (folder / "config.json").exists():
        return "SequenceClassification"
    architectures = read_json(folder / "config.json").get("architectures") or []
    heads = [m[1] for a in architectures if (m := re.fullmatch(r"\w+?For(\w+)", a)) and m[1] in BY_HEAD]
    if not heads:
        said = ", ".join(architectures) or "none"
        raise ModelError(f"{model}: its config.json names no architecture that reranks ({said}); say how with --use")
    return heads[0]


def _no_adapter(model: str, base: str) -> dict[str, Any]:
    raise ModelError(f"{model}: an adapter of {base}, which is no language model; merge it, and name the merged folder")
