"""The two factors of every layer's update, and an adapter as one plain LoRA made of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rankpipe.catalog import need
from rankpipe.errors import RecipeError

NAME = "default"  # PEFT's name of the only adapter


def layers(model: Any) -> Iterator[tuple[str, Any]]:
    """The adapted layers by their path."""
    tuners = need("peft.tuners.tuners_utils", name="an adapter", extra="train")
    for path, module in model.named_modules():
        if isinstance(module, tuners.BaseTunerLayer):
            yield path, module


def base_layer(base: Any, path: str) -> Any:
    """What an adapted layer of this path is over, in a base model without an adapter."""
    return base.get_submodule(path.removeprefix("base_model.model."))


def remember(layer: Any, b: Any, a: Any) -> None:
    """That ``b @ a`` lies in the base layer, which the base model does not have: it belongs to the adapter."""
    layer.past = [*past(layer), (b.detach().float().cpu().clone(), a.detach().float().cpu().clone())]


def past(layer: Any) -> list[tuple[Any, Any]]:
    """What is remembered of this layer."""
    return getattr(layer, "past", [])


def forget(layer: Any) -> None:
    """What is remembered, since the base layer has it no more."""
    layer.past = []


def product(layer: Any, b: Any, a: Any) -> Any:
    """``b @ a`` as the base layer's weight lies, and where it does."""
    device = layer.get_base_layer().weight.device
    made = (b.to(device) @ a.to(device)).float()
    return made.T if layer.fan_in_fan_out else made


def factors(layer: Any) -> tuple[Any, Any]:
    """``(B, A)``, in single precision, whose product is the whole update of a base layer that has nothing of it.

    Sums of products are products of factors put side by side: ``B1 A1 + B2 A2 = [B1 B2] [A1; A2]``, exactly.

    :raises RecipeError: If this layer's update is no such product.
    """
    torch = need("torch", name="an adapter", extra="train")
    if not hasattr(layer, "lora_A") or getattr(layer, "lora_variant", {}):
        raise RecipeError(["as_lora: this update is not of low rank; save it in PEFT's own form, or merge it"])
    b, a, scaling = layer.lora_B[NAME], layer.lora_A[NAME], layer.scaling[NAME]
    if hasattr(layer, "lora_E"):  # AdaLoRA's, singular values between the factors; 0 where a rank was taken away
        kept = layer.lora_E[NAME].squeeze(1) != 0
        now = (b[:, kept] * (scaling / (layer.ranknum[NAME] + 1e-5)), (a * layer.lora_E[NAME])[kept])
    else:
        now = (b.weight * scaling, a.weight)
    both = [(now[0].detach().float().cpu(), now[1].detach().float().cpu()), *past(layer)]
    return torch.cat([b for b, _ in both], dim=1), torch.cat([a for _, a in both], dim=0)


def save_as_lora(model: Any, folder: str | Path) -> None:
    """Write an adapter as a plain LoRA of one rank, the largest of any layer, and ``alpha`` the same: scaling 1."""
    peft = need("peft", name="an adapter", extra="train")
    config = model.peft_config[NAME]
    made = {path: factors(layer) for path, layer in layers(model)}
    rank = max(max(b.shape[1] for b, _ in made.values()), 1)
    state = {
        key: value.detach().cpu().contiguous()
        for key, value in peft.get_peft_model_state_dict(model, save_embedding_layers=False).items()
        if "lora_" not in key
    }
    for path, (b, a) in made.items():
        pad = rank - b.shape[1]
        functional = need("torch", name="an adapter", extra="train").nn.functional
        state[f"{path}.lora_B.weight"] = functional.pad(b, (0, pad)).contiguous()
        state[f"{path}.lora_A.weight"] = functional.pad(a, (0, 0, 0, pad)).contiguous()
    plain = peft.LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=config.target_modules,
        modules_to_save=config.modules_to_save,
        fan_in_fan_out=config.fan_in_fan_out,
        task_type=config.task_type,
        base_model_name_or_path=config.base_model_name_or_path,
        inference_mode=True,
    )
    Path(folder).mkdir(parents=True, exist_ok=True)
    need("safetensors.torch", name="an adapter", extra="train").save_file(
        state, str(Path(folder) / "adapter_model.safetensors"), metadata={"format": "pt"}
    )
    plain.save_pretrained(str(folder))
