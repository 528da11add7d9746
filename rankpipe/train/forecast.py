"""What a training will hold in memory, before a weight is loaded; and a refusal where that cannot be had.

The model is made of tensors that have shapes and no numbers (torch's fake tensors), so that one of any size is foretold
in seconds. It reads the longest batch that the examples can give, and what autograd would keep for the way back is
counted, storage by storage: that depends on the kernels, and formulas of it are of one architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from heapq import nlargest
from typing import Any

from rankpipe import weights
from rankpipe.catalog import need
from rankpipe.disk import shown
from rankpipe.errors import RecipeError
from rankpipe.retrieve.forecast import free_memory
from rankpipe.train import shards
from rankpipe.train.adapters.adapter import Adapter
from rankpipe.train.adapters.frozen import FrozenA, LoRAFA
from rankpipe.train.adapters.inner import LoRASB, LoRAXS
from rankpipe.train.adapters.lora import DoRA, LoRA
from rankpipe.train.adapters.qlora import spared
from rankpipe.train.adapters.randlora import RandLoRA
from rankpipe.train.examples import Example
from rankpipe.train.heads.head import Batch, Numbers, Ranker
from rankpipe.train.objective import Objective
from rankpipe.train.optimizers.settings import Settings

KNOBS = {  # what makes each of them smaller
    "weights": "dtype: bfloat16, or nf4 with an adapter",
    "gradients": "adapter: lora, or optimizer: {use: galore, layerwise: true} with gradient_accumulation_steps: 1",
    "optimizer": "adapter: lora, or optimizer: adam8bit, adafactor or galore",
    "average": "no ema",
    "activations": "training: {gradient_checkpointing: true}, a smaller per_device_train_batch_size with more "
    "gradient_accumulation_steps, fewer documents in a list (length), or a smaller context or max_length of the head",
}


@dataclass(frozen=True)
class Forecast:
    """Bytes that are held at once at the end of the forward pass of the longest batch, beside Python and torch.

    Of processes that share weights out (FSDP), it is one's part of all but the activations; of those that share the
    optimizer out (DeepSpeed), one's part of that.

    :param weights: of the model and its adapter; where they are shared out, also whole, as they are while measured.
    :param gradients: of what is trained; layer by layer the largest one, unless several batches make a step.
    :param optimizer: its state, once every weight has had a gradient; DeepSpeed's has the weights, too.
    :param average: the weights' moving average, if there is one.
    :param activations: what autograd keeps, and the logits and scores.
    """

    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, int]:
        """By name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def refuse(self, memory: float, where: str) -> None:
        """Refuse what cannot fit.

        :param memory: bytes that can be had.
        :raises RecipeError: If it takes more; says what takes how much, and what helps, the largest first.
        """
        if self.total > memory:
            largest = sorted(self.parts.items(), key=lambda part: -part[1])
            faults = [f"memory: about {shown(self.total)} are needed, {where} has {shown(memory)}"]
            faults += [f"{name}: {shown(n)}; less with {KNOBS[name]}" for name, n in largest if n > memory / 20]
            raise RecipeError(faults)


def free(device: str) -> float:
    """Bytes that can be had where it is trained."""
    if device == "cpu":
        return free_memory()
    return float(need("torch", name="training", extra="train").cuda.mem_get_info()[0])


def forecast(
    ranker: Ranker, objective: Objective, settings: Settings, adapter: Adapter | None, longest: Sequence[Example],
    *, dtype: Numbers, args: Any, ema: bool,
) -> Forecast:  # fmt: skip
    """What training takes.

    Adapters that need data to begin, and others alike, are taken for LoRA or LoRA-XS of the same rank. Not counted is
    what two have beyond it: EVA where data move ranks to larger layers, and AdaLoRA's scores, three for each number
    that is trained.

    :param longest: the batch that takes most.
    :param dtype: of the model's weights.
    :param args: ``transformers.TrainingArguments``.
    """
    torch = need("torch", name="training", extra="train")
    from torch._subclasses.fake_tensor import FakeTensorMode

    model = ranker.load(dtype, empty=True)
    less = spared(model, dtype)
    if adapter:
        with weights.quiet():
            model = _alike(adapter).apply(model)
    layerwise = getattr(settings, "layerwise", False)
    batch = ranker.batch(longest, reply=objective.reply, together=objective.together)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        model = model.to_empty(device="cpu").train()
        model.tie_weights()
        trained = [p for p in model.parameters() if p.requires_grad]
        sizes = [p.nbytes for p in trained]
        shapes = {k: mode.from_tensor(v) if torch.is_tensor(v) else v for k, v in batch.items()}
        kept = _kept(ranker, model, shapes, args)
        whole = sum(t.nbytes for t in (*model.parameters(), *model.buffers())) - less
        parts, zero = args.world_size if shards.fsdp(args) else 1, shards.zero_stage(args)
        state = settings.formula_bytes(model) + (4 * sum(p.numel() for p in trained) if zero else 0)
        return Forecast(
            weights=whole + (whole // parts if parts > 1 else 0),
            gradients=(max(sizes) if layerwise and args.gradient_accumulation_steps == 1 else sum(sizes)) // parts,
            optimizer=state // (args.world_size if zero else parts),
            average=4 * sum(p.numel() for p in trained) // parts if ema else 0,
            activations=kept,
        )


def _alike(adapter: Adapter) -> Adapter:
    """What holds as much, and goes onto a model without numbers."""
    if isinstance(adapter, DoRA | RandLoRA | FrozenA | LoRAFA | LoRAXS):
        return adapter
    if isinstance(adapter, LoRASB):
        return LoRAXS(rank=adapter.rank, targets=adapter.targets, dropout=adapter.dropout)
    rank = max(adapter.rank, getattr(adapter, "begin_rank", 0))
    return LoRA(rank=rank, targets=adapter.targets, dropout=adapter.dropout)


def _kept(ranker: Ranker, model: Any, batch: Batch, args: Any) -> int:
    """Bytes that autograd keeps of a forward pass, and twice the logits, which the loss reads in single precision.

    Fake tensors do not say that a batch has no padding, so that attention always has its mask here.

    With gradient checkpointing these are what goes into each layer, and all of one layer.
    """
    torch = need("torch", name="training", extra="train")
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    saved: dict[int, tuple[Any, int]] = {}  # holding a storage keeps its number from being given away

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage, storage.nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16 if args.bf16 else torch.float16, enabled=args.bf16 or args.fp16),
    ):
        outputs = ranker.forward(model, batch)
    layers, kept = getattr(model.config, "num_hidden_layers", 1), sum(size for _, size in saved.values())
    if args.gradient_checkpointing:
        tokens = batch["input_ids"].numel()
        width = 2 if args.bf16 or args.fp16 else model.dtype.itemsize
        kept = kept // layers + layers * tokens * model.config.hidden_size * width
    logits = 0 if outputs.logits is None else 2 * 4 * outputs.logits.numel()
    return int(kept + logits)


def longest(examples: Any, lists: int) -> list[Example]:
    """The examples with most to read, as many as a batch has.

    :param examples: a ``datasets.Dataset`` of lists.
    """

    def size(e: Example) -> int:
        return sum(len(doc.contents) + len(e.query.text) for doc in e.docs)

    return nlargest(lists, map(Example.of, examples), key=size)
