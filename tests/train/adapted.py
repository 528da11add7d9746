"""Tiny random models with adapters, and a loop that trains them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rankpipe.train.adapters.adalora import AdaLoRA
from rankpipe.train.adapters.adapter import Adapter
from rankpipe.train.adapters.eva import Eva
from rankpipe.train.adapters.frozen import FrozenA, LoRAFA
from rankpipe.train.adapters.inner import LoRASB, LoRAXS
from rankpipe.train.adapters.lora import DoRA, LoRA, RsLoRA
from rankpipe.train.adapters.loraplus import LoRAPlus
from rankpipe.train.adapters.pissa import PiSSA
from rankpipe.train.adapters.randlora import RandLoRA
from rankpipe.train.adapters.relora import ReLoRA

METHODS: dict[str, Adapter] = {
    "lora": LoRA(rank=4, alpha=8),
    "rslora": RsLoRA(rank=4, alpha=8),
    "dora": DoRA(rank=4, alpha=8),
    "pissa": PiSSA(rank=4, alpha=8),
    "eva": Eva(rank=4, alpha=8, spread=2.0),
    "lora-plus": LoRAPlus(rank=4, alpha=8),
    "lora-fa": LoRAFA(rank=4, alpha=8),
    "frozen-a": FrozenA(rank=4, alpha=8),
    "adalora": AdaLoRA(rank=2, begin_rank=4, alpha=8, every=1),
    "randlora": RandLoRA(rank=8, alpha=20),
    "lora-xs": LoRAXS(rank=4, alpha=8),
    "lora-sb": LoRASB(rank=4, alpha=8),
    "relora": ReLoRA(rank=4, alpha=8, every=4, stages=3, warmup=0),
}
STEPS = 12
WORDS = 48


def llama(dtype: str = "float32", head: bool = False, **sizes: int) -> Any:
    import torch
    import transformers

    small = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1} | sizes
    config = transformers.LlamaConfig(vocab_size=WORDS, num_hidden_layers=2, num_labels=1, pad_token_id=0, **small)
    kind = transformers.LlamaForSequenceClassification if head else transformers.LlamaForCausalLM
    return seeded(kind, config).to(getattr(torch, dtype)).eval()


def bert(dtype: str = "float32") -> Any:
    import torch
    import transformers

    config = transformers.BertConfig(
        vocab_size=WORDS, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_labels=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return seeded(transformers.BertForSequenceClassification, config).to(getattr(torch, dtype)).eval()


def gpt2() -> Any:
    import transformers

    config = transformers.GPT2Config(
        vocab_size=WORDS, n_embd=16, n_inner=24, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return seeded(transformers.GPT2LMHeadModel, config).eval()


def seeded(kind: Any, config: Any) -> Any:
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(config)


def batches(n: int = 1, rows: int = 4, width: int = 8) -> list[dict[str, Any]]:
    import torch

    draw = torch.Generator().manual_seed(1)
    ids = [torch.randint(1, WORDS, (rows, width), generator=draw) for _ in range(n)]
    return [{"input_ids": i, "attention_mask": torch.ones_like(i)} for i in ids]


def outputs(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(**batches()[0]).logits.float()


def scattered(model: Any, batch: Any) -> Any:
    """A loss outside the model, as those of rankers are."""
    import torch

    logits = model(**batch).logits.float()
    target = torch.sin(torch.arange(logits.numel(), dtype=torch.float32)).view(logits.shape)
    return ((logits - target) ** 2).mean()


def adapted(adapter: Adapter, model: Any, steps: int = STEPS) -> Any:
    return adapter.apply(model, calibration=batches(1, rows=8), loss=scattered, steps=steps)


def train(
    adapter: Adapter, model: Any, *, steps: int = STEPS, lr: float = 1e-2, callbacks: Any = None, optimizer: Any = None,
    begin: int = 0, after: Callable[[int], None] | None = None,
) -> Any:  # fmt: skip
    """A loop in the order of transformers' Trainer; the optimizer."""
    import torch

    hooks = adapter.callbacks() if callbacks is None else callbacks
    optimizer = optimizer or torch.optim.AdamW(adapter.groups(model, lr))
    for step in range(begin + 1, steps + 1):
        loss = scattered(model, batches(steps)[step - 1])
        if (extra := adapter.extra_loss(model)) is not None:
            loss = loss + extra
        loss.backward()
        optimizer.step()
        for hook in hooks:
            hook.on_step(model, optimizer, step)
        optimizer.zero_grad()
        if after:
            after(step)
    return optimizer


def apart(a: Any, b: Any) -> float:
    return float((a - b).detach().abs().max())
