"""What prompts begin with alike is computed once: its keys and values serve all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from typing import Any

from rankpipe.catalog import need
from rankpipe.lm.local import PASS

Group = tuple[int, list[int]]  # how many first tokens are the same, and in which prompts
MASKED = 5_000  # pairs of tokens whose attention, off its fast path, takes as much longer as a token takes in all


@dataclass
class _Node:
    """Prompts with the same first tokens, as far as they have been looked at."""

    depth: int  # how many tokens that are
    rows: list[int] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    saved: int = 0  # tokens, by these groups

    def add(self, other: _Node) -> None:
        """Some more of them."""
        self.rows += other.rows
        self.groups += other.groups
        self.saved += other.saved

    def closed(self, prompts: Sequence[list[int]]) -> _Node:
        """All in one group, if that saves more than the parts do."""
        saved = gain([len(prompts[i]) for i in self.rows], self.depth)
        return _Node(self.depth, self.rows, [(self.depth, self.rows)], saved) if saved > self.saved else self


def gain(lengths: Sequence[int], depth: int) -> int:
    """Tokens that are saved if prompts of these lengths share their first ``depth``.

    What is lost: a forward pass, and the fast path of attention, which wants prompts that begin at their beginning
    (SmolLM2 in bfloat16 on a CPU: 60 of 1,500 tokens shared made it a quarter slower, 30 of 130 a sixth faster).
    """
    masked = sum((n - depth) * n for n in lengths) // MASKED
    return (len(lengths) - 1) * depth - PASS - masked


def shared(prompts: Sequence[list[int]]) -> list[Group]:
    """Each prompt in one group, so that most tokens are saved; those with nothing to share are a group of depth 0.

    The prompts are walked in sorted order, which is that of the tree of their beginnings; of each branch it is known
    what it saves when it is left.
    """
    order = sorted(range(len(prompts)), key=prompts.__getitem__)
    path = [_Node(0)]  # the branches that are still open, each begins with the one before
    for i, following in pairwise([*order, None]):
        assert i is not None
        node = _Node(len(prompts[i]), [i])
        depth = _alike(prompts[i], prompts[following]) if following is not None else 0
        while path[-1].depth > depth:
            path[-1].add(node)
            node = path.pop().closed(prompts)
        if path[-1].depth < depth:
            path.append(_Node(depth))
        path[-1].add(node)
    found = path[0].groups
    alone = set(range(len(prompts))).difference(*(rows for _, rows in found))
    return [*found, *([(0, sorted(alone))] if alone else [])]


def _alike(a: Sequence[int], b: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def sharing(model: Any) -> bool:
    """Whether a model can go on from keys and values of its own with padding behind them.

    Not where a layer keeps something else (a window, a state), and not under an adapter that has its own beginning.
    """
    caches = need("transformers.cache_utils", name="hf", extra="lm")
    layers = caches.DynamicCache(config=model.config).layers
    adapter = getattr(model, "active_peft_config", None)
    return all(type(layer) is caches.DynamicLayer for layer in layers) and not getattr(
        adapter, "is_prompt_learning", False
    )


class Past:
    """The first tokens of some prompts, read by a model."""

    def __init__(self, model: Any, tokens: Sequence[int]) -> None:
        torch = need("torch", name="hf", extra="lm")
        self._cache = need("transformers", name="hf", extra="lm").DynamicCache
        self.tokens, self._layers = tokens, list[tuple[Any, Any]]()
        if tokens:
            read = self._cache()
            model(
                input_ids=torch.tensor([tokens], device=model.device),
                past_key_values=read,
                use_cache=True,
                logits_to_keep=1,
            )
            self._layers = [(layer.keys, layer.values) for layer in read.layers]  # (1, heads, tokens, size) each

    def cache(self, rows: int) -> Any:
        """For a batch of so many to go on from; None if there is nothing to go on from."""
        if not self.tokens:
            return None
        return self._cache([tuple(kv.expand(rows, -1, -1, -1) for kv in layer) for layer in self._layers])
