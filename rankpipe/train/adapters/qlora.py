"""QLoRA (Dettmers et al. 2023, https://arxiv.org/abs/2305.14314): any adapter over a base of four or eight bits."""

from __future__ import annotations

from typing import Any, Literal

from rankpipe.catalog import need, require

BITS: dict[str, Literal[4, 8]] = {"nf4": 4, "int8": 8}
BLOCK, SUPERBLOCK = 64, 256  # numbers that share a scale, of a byte; scales that share one, of four (section 3)


def loading(dtype: str, *, empty: bool = False) -> dict[str, Any]:
    """How ``from_pretrained`` is told of the numbers that weights are to be: a dtype of torch, or one of :data:`BITS`.

    :param empty: a model to be quantised is loaded in single precision, which is what PEFT makes of all else in it.
    :raises MissingExtra: If it is to be quantised, and bitsandbytes is not installed.
    """
    torch = need("torch", name="a head", extra="train")
    if dtype not in BITS:
        return {"dtype": getattr(torch, dtype)}
    if empty:
        return {"dtype": torch.float32}
    return {"dtype": torch.bfloat16, "quantization_config": quantised(BITS[dtype])}


def spared(model: Any, dtype: str) -> int:
    """Bytes that an ``empty`` model's layers take less once they are quantised: all linear ones but the last."""
    if dtype not in BITS:
        return 0
    linear = need("torch", name="a head", extra="train").nn.Linear
    last, taken = model.get_output_embeddings(), 0
    for layer in model.modules():
        if isinstance(layer, linear) and layer is not last:
            n = layer.weight.numel()
            scales = n / BLOCK * (1 + 4 / SUPERBLOCK) if dtype == "nf4" else 4 * layer.out_features
            taken += layer.weight.nbytes - round(n * BITS[dtype] / 8 + scales)
    return taken


def quantised(bits: Literal[4, 8] = 4) -> Any:
    """What ``from_pretrained(quantization_config=...)`` is given; four bits are NF4, its scales quantised, too.

    The model that comes of it is adapted as any other: norms are then in single precision.

    :raises MissingExtra: If bitsandbytes is not installed.
    """
    require("bitsandbytes", name="qlora", extra="bnb")
    config = need("transformers", name="qlora", extra="train").BitsAndBytesConfig
    if bits == 8:
        return config(load_in_8bit=True)
    torch = need("torch", name="qlora", extra="train")
    return config(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
