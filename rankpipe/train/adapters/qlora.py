"""QLoRA (Dettmers et al. 2023, https://arxiv.org/abs/2305.14314): any adapter over a base of four or eight bits."""

from __future__ import annotations

from typing import Any, Literal

from rankpipe.catalog import need, require


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
