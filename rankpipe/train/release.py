"""A tuned model for others to use: an adapter merged into its base, or files that plain PEFT, vLLM and hubs read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rankpipe import builds, store, weights
from rankpipe.catalog import need
from rankpipe.disk import disk_errors
from rankpipe.errors import ArtefactError, RecipeError
from rankpipe.lm.local import loaded, whole
from rankpipe.progress import working
from rankpipe.store import Manifest
from rankpipe.train.adapters.factors import save_as_lora
from rankpipe.train.adapters.merging import MergeLoss, merge
from rankpipe.train.card import for_others
from rankpipe.train.heads.head import Dtype
from rankpipe.weights import rankers

OWN = ("adapter_config.json", "adapter_model.safetensors", "README.md")  # an adapter's, among a tokenizer's


def merged(made: Manifest, out: Path, dtype: Dtype) -> MergeLoss:
    """Publish the whole model, the adapter in its weights, as a tuned model again; what rounding lost of the adapter.

    :param dtype: of the base when it is added to, and of what is made.
    :raises RecipeError: If there is no adapter to merge.
    :raises ArtefactError: If something else was built in ``out``.
    """
    store.claim(out, weights.TUNED)
    if rankers.is_tuned(out) and "merged" not in store.read_manifest(out).facts:
        raise ArtefactError(f"{out}: holds a model that was trained there; name another folder")
    model, loss = merge(_adapted(made, dtype))
    node = rankers.reranker(made, base=True)
    node["lm"] |= {"model": str(out), "dtype": dtype}
    with store.publish(out, kind=weights.TUNED, recipe=made.recipe, data=made.data) as draft:
        with weights.quiet():
            model.save_pretrained(str(draft.folder))
        _beside(made, draft.folder)
        said = {"from": str(made.folder), "dtype": dtype, "of_update": loss.of_update, "largest": loss.largest}
        draft.facts |= {**made.facts, "reranker": node, "merged": said}
    return loss


def exported(made: Manifest, out: Path, *, as_lora: bool = False) -> None:
    """Write a folder of plain files: the model or adapter as it is, with its card, or as one plain LoRA.

    :param as_lora: which is exact, and vLLM serves.
    :raises RecipeError: If there is no adapter, or its update is not of low rank.
    :raises ArtefactError: If ``out`` is there.
    """
    with _whole_folder(out) as folder:
        if as_lora:
            save_as_lora(_adapted(made, "float32"), folder)
            _beside(made, folder)
        else:
            shutil.copytree(made.path, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
        if (card := made.folder / "card.md").exists():
            (folder / "README.md").write_text(for_others(card.read_text("utf-8"), made), "utf-8")
        _name_base(folder / rankers.ADAPTER, made.recipe["model"])


def _adapted(made: Manifest, dtype: Dtype) -> Any:
    """The language model under its adapter."""
    if not rankers.has_adapter(made):
        raise RecipeError(
            [f"{made.folder}: a whole model, with any adapter merged; export it with --format safetensors"]
        )
    torch, transformers, peft = (need(m, name="models", extra="train") for m in ("torch", "transformers", "peft"))
    base = made.recipe["model"]
    with working(f"{base}: loading"):
        model = whole(transformers.AutoModelForCausalLM, weights.resolve(base), dtype=getattr(torch, dtype))
        return loaded(peft.PeftModel, made.path, model)


def _beside(made: Manifest, folder: Path) -> None:
    """What lies beside an adapter: the tokenizer."""
    for path in made.paths:
        if path.parent == made.path and path.name not in OWN and not path.name.startswith("."):
            shutil.copyfile(path, folder / path.name)


def _name_base(config: Path, model: str) -> None:
    """The base by its name on the hub, if it has one: where it lies on this machine is nobody else's business."""
    if config.exists() and (known := weights.find(model)) and known.id:
        said = json.loads(config.read_text("utf-8")) | {"base_model_name_or_path": known.id}
        config.write_text(json.dumps(said, indent=2, sort_keys=True), "utf-8")


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A folder that is there when the block ends, with all that was put into it, and else not."""
    if out.exists():
        raise ArtefactError(f"{out}: is there already; name another folder")
    work = out.with_name(f".{out.name}.{os.getpid()}.part")
    with disk_errors(out), builds.working(work):
        yield work
        work.rename(out)
