"""What can be asked of Milvus: kinds of index, metrics, where it is; and how that is said to it."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any
from urllib.parse import urlsplit

from rankpipe import weights
from rankpipe.catalog import require
from rankpipe.errors import RecipeError
from rankpipe.retrieve.collection import DENSE, SPARSE, Fusion
from rankpipe.retrieve.memory import ANY, size_bytes
from rankpipe.splade import require_libraries

METRICS = ("IP", "COSINE", "L2")
TRIED = {"uri": None, "key": None, "index": "FLAT", "params": None, "sparse_index": "SPARSE_INVERTED_INDEX"}
LITE = {"index": ("FLAT", "HNSW", "IVF_FLAT", "AUTOINDEX"), "sparse_index": ("SPARSE_INVERTED_INDEX",)}


def faults(recipe: dict[str, Any]) -> list[str]:
    """What is out of its range in the arguments of ``build``."""
    found = [] if recipe["model"] or recipe["sparse"] else ["model: none, and no sparse one; give one, or both"]
    if recipe["metric"] not in METRICS:
        found.append(f"metric: {recipe['metric']!r} is not one of {', '.join(METRICS)}")
    for option, known in LITE.items():
        if recipe["uri"] is None and recipe[option] not in known:
            found.append(f"{option}: {recipe[option]!r} is not one of Milvus Lite's, {', '.join(known)}")
    address = urlsplit(recipe["uri"] or "http://host")
    if address.scheme not in ("http", "https") or not address.hostname:
        found.append(f"uri: {recipe['uri']!r}; expected http://host:19530; without it, a file is made in the folder")
    if address.username or address.password:
        found.append("uri: has a password in it; put it into an environment variable, and name that with key=")
    if not recipe["timeout_s"] > 0:
        found.append(f"timeout_s: {recipe['timeout_s']}; expected more than 0")
    return found


def refuse_limit(memory: str | int | None, uri: str | None) -> None:
    """Refuse a limit of memory that could not be kept to.

    :raises RecipeError: If there is one, and no server has the vectors.
    """
    if uri is None and size_bytes(memory) < ANY:
        raise RecipeError(
            ["memory: Milvus Lite holds all vectors in it; leave it out, or have a server (uri) hold them"]
        )


def needs(*, model: str | None, sparse: str | None, uri: str | None, **_: Any) -> None:
    """Refuse what cannot run here.

    :raises MissingExtra: If pymilvus is not installed, or Milvus Lite, without ``uri``; or what a model needs.
    """
    for module in ("pymilvus", *(() if uri else ("milvus_lite",))):
        require(module, name="the index milvus", extra="milvus")
    if model:
        weights.require_runner(model, "encoder")
    if sparse:
        require_libraries(sparse)


def kinds(recipe: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """How each field is indexed."""
    return {
        DENSE: {"index_type": recipe["index"], "metric_type": recipe["metric"], "params": recipe["params"] or {}},
        SPARSE: {"index_type": recipe["sparse_index"], "metric_type": "IP", "params": {}},
    }


def how(recipe: dict[str, Any], k: int, params: dict[str, Any], share: float) -> dict[str, dict[str, Any]]:
    """How each field is searched.

    :param params: of the dense index, as the caller wants them.
    :param share: of the documents that may be found: Milvus Lite looks at all others, too, and so at more. A server
        decides that itself.
    """
    lite = not recipe["uri"]
    graph = recipe["index"] == "HNSW" or (recipe["index"] == "AUTOINDEX" and lite)
    wide = {"ef": max(k, 64)} if graph else {"nprobe": 10} if recipe["index"] == "IVF_FLAT" and lite else {}
    looks = {**wide, **params}  # by default Milvus Lite has an ef of 64, which finds no more, and an nprobe of 10
    if lite:
        looks |= {name: ceil(looks[name] / share) for name in ("ef", "nprobe") if name in looks}
    return {
        DENSE: {"metric_type": recipe["metric"], "params": looks},
        SPARSE: {"metric_type": "IP", "params": {}},
    }


def fusion(recipe: dict[str, Any], weights: Sequence[float] | None, rank_constant: int) -> Fusion | None:
    """What makes Milvus' ranker for some lists; None if there is one field."""
    if not (recipe["model"] and recipe["sparse"]):
        return None
    if weights is None:
        return lambda milvus, _: milvus.RRFRanker(rank_constant)
    return lambda milvus, lists: milvus.WeightedRanker(*weights[:lists])
