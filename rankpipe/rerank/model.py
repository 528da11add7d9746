"""Which reranker a model is made for: by the table of models, or by what the model's own files say."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from rankpipe import weights
from rankpipe.catalog import find, is_known
from rankpipe.errors import ModelError, RecipeError
from rankpipe.onnx import read_json
from rankpipe.weights import rankers

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
}


def component(model: str, use: str | None = None, lm: str = "hf") -> dict[str, Any]:
    """The recipe node of the reranker that runs this model. What ``rankpipe train`` made knows its own.

    A PEFT adapter is put on top of the model that it names. An unknown language model reranks listwise, with
    RankZephyr's prompt.

    :param model: an alias, a Hugging Face id or a folder; on a server, what that calls it.
    :param use: this reranker, instead of the one that the model was made for.
    :param lm: what runs a language model: ``hf``, ``vllm``, ``ray`` (which spreads ``hf``), or the URL of a server
        (``http://127.0.0.1:8000/v1``).
    :raises MissingWeights: If the model cannot be had.
    :raises ModelError: If nothing says what kind of model it is, or it is no reranker.
    :raises RecipeError: If the reranker takes no model, or ``lm`` runs none.
    """
    served = "://" in lm
    if not served:
        _refuse_unknown(lm)  # first: what is no server could pass for a wrong model
        if (made := _tuned(model)) and use in (None, made["use"]):
            asked = {k: v for k, v in made.get("lm", {}).items() if k != "use"}
            return made | ({"lm": _run_by(lm, asked)} if asked else {})
    base, more = (model, {}) if served else _adapted(model)
    known = weights.find(base)
    own = known.rerank.get("use") if known else None  # with its prompt
    node = {"use": use} if use and use != own else _made_for(base, served)
    takes = inspect.signature(find(node["use"])).parameters
    if "lm" in takes:
        return {**node, "lm": _run_by(lm, {"model": base, **more})}
    if "model" not in takes:
        raise RecipeError([f"{node['use']} takes no model; see: rankpipe ls"])
    if more:
        raise ModelError(
            f"{model}: an adapter, which {node['use']} does not take; merge it, and name the merged folder"
        )
    return {**node, "model": base}


def _tuned(model: str) -> dict[str, Any] | None:
    """The node of a model that was made here, if it is one."""
    return rankers.reranker(rankers.ranker(model)) if rankers.is_tuned(Path(model).expanduser()) else None


def _run_by(lm: str, model: dict[str, Any]) -> dict[str, Any]:
    """The node of a language model."""
    if "://" in lm:
        return {"use": "http", "url": lm, **model}
    takes = inspect.signature(find(lm)).parameters
    return {"use": lm, "lm": {"use": "hf", **model}} if "lm" in takes else {"use": lm, **model}


def _refuse_unknown(lm: str) -> None:
    """Refuse what runs no language model."""
    runs: Any = find(lm) if is_known(lm) else None
    if hasattr(runs, "complete") and {"lm", "model"} & inspect.signature(runs).parameters.keys():
        return
    said = f"--lm {lm}: expected hf, vllm, ray, or the URL of a server (http://127.0.0.1:8000/v1)"
    if host := re.fullmatch(r"(localhost|[\w-]+(\.[\w-]+)+|\[[\da-f:]+\]|[\w-]+(?=:\d))(:\d+)?(/.*)?", lm):
        said = f"--lm {lm}: a host, whose scheme is missing: --lm http://{lm}" + ("" if host[4] else "/v1")
    raise RecipeError([said])


def guess(model: str, lm: str = "hf") -> str:
    """By what the reranker of a model was chosen that the table does not have; "" of one that it has.

    :param lm: as for :func:`component`.
    """
    served = "://" in lm
    if (not served and _tuned(model)) or weights.find(model if served else _adapted(model)[0]):
        return ""
    return "as any model on a server" if served else "by the architecture in its config.json"


def _adapted(model: str) -> tuple[str, dict[str, str]]:
    """An adapter: the model it is put on, and its folder as an argument. Any other model: as it is."""
    folder = Path(model).expanduser() if weights.find(model) else weights.resolve(model)
    if base := read_json(folder / rankers.ADAPTER).get("base_model_name_or_path"):
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
    if read_json(folder / "config_sentence_transformers.json").get("model_type") == "SparseEncoder":
        return "splade"
    architectures = read_json(folder / "config.json").get("architectures") or []
    uses = [use for a in architectures for pattern, use in BY_ARCHITECTURE.items() if re.fullmatch(pattern, a)]
    if not uses:
        said = ", ".join(architectures) or "none"
        raise ModelError(f"{model}: its config.json names no architecture that reranks ({said}); say how with --use")
    return uses[0]
