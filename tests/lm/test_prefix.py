"""What chats begin with alike is computed once: the same answers from fewer tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankpipe.lm import Chat
from rankpipe.lm.hf import HF
from rankpipe.lm.local import PASS
from rankpipe.lm.prefix import gain, shared, sharing
from tests.lm.tiny import mistral

pytest.importorskip("torch")
pytest.importorskip("transformers")

LONG = "Given a query about the life cycle of fleas, which of these passages is the most relevant one? "
OTHER = "Of two passages about something else altogether, the better one is to be named by its letter. "
HEAD = len("<user>" + LONG)  # tokens: a byte is one
TAIL = len("<assistant>") + 1


def ask(text: str) -> Chat:
    return [{"role": "user", "content": text}]


def exact(folder: Path, **options: Any) -> HF:
    return HF(str(folder), dtype="float32", **options)


def texts(n: int, longest: int = 60) -> list[str]:
    """That differ in their first letter, so that they share nothing."""
    random = Random(5)
    return [chr(ord("a") + i) + "".join(random.choices("xyz ", k=random.randint(1, longest))) for i in range(n)]


CALLS = {
    "one group": [ask(LONG + t) for t in texts(9)],
    "equal lengths": [ask(LONG + t) for t in "abcdef"],
    "two groups and others": [
        ask(t) for t in [begin + t for begin in (LONG, OTHER) for t in texts(5)] + ["v", "w", "x", "y", "z"]
    ],
    "the same chat": [ask(LONG)] * 4,
    "one within another": [ask(LONG * n + "?") for n in (1, 2, 1, 2)],
}  # fmt: skip


@contextmanager
def counted(lm: HF) -> Iterator[list[int]]:
    """Of each forward pass inside, how many tokens it computed."""
    passes: list[int] = []
    hook = lm._model.register_forward_pre_hook(
        lambda _, args, options: passes.append(options["input_ids"].numel()), with_kwargs=True
    )
    yield passes
    hook.remove()


@pytest.mark.parametrize("asked", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("batch_tokens", [400, 100_000])
def test_choices_are_those_of_each_chat_alone(tiny_lm: Path, asked: Sequence[Chat], batch_tokens: int) -> None:
    lm = exact(tiny_lm, batch_tokens=batch_tokens)
    with counted(lm) as together:
        said = lm.choose(asked, ["A", "B", "z"], begin="[")
    with counted(lm) as alone:
        each = [lm.choose([chat], ["A", "B", "z"], begin="[")[0] for chat in asked]
    assert len(alone) == len(asked), "one chat is one pass"
    assert sum(together) < sum(alone) - HEAD
    for a, b in zip(said, each, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
        assert a.tokens_in == b.tokens_in


@pytest.mark.parametrize("asked", CALLS.values(), ids=CALLS)
def test_replies_are_as_likely_as_alone(tiny_lm: Path, asked: Sequence[Chat]) -> None:
    lm, replies = exact(tiny_lm), (["flea", "", "a life cycle", "x"] * len(asked))[: len(asked)]
    with counted(lm) as together:
        said = lm.likelihood(asked, replies)
    with counted(lm) as alone:
        each = [lm.likelihood([chat], [reply])[0] for chat, reply in zip(asked, replies, strict=True)]
    assert sum(together) < sum(alone) - HEAD
    for a, b in zip(said, each, strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-3)
        assert (a.tokens, a.tokens_in) == (b.tokens, b.tokens_in)


@pytest.mark.parametrize("asked", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("batch_tokens", [500, 100_000])
def test_completions_are_those_of_each_chat_alone(tiny_lm: Path, asked: Sequence[Chat], batch_tokens: int) -> None:
    lm = exact(tiny_lm, batch_tokens=batch_tokens)
    with counted(lm) as together:
        said = lm.complete(asked, max_tokens=12)
    with counted(lm) as alone:
        each = [lm.complete([chat], max_tokens=12)[0] for chat in asked]
    assert said == each
    assert sum(together) < sum(alone) - HEAD


def test_the_beginning_is_computed_once(tiny_lm: Path) -> None:
    lm = exact(tiny_lm)
    with counted(lm) as passes:
        lm.choose([ask(LONG + t) for t in "abcdef"], ["A"])
    assert passes == [HEAD, 6 * (1 + TAIL)]


def test_a_batch_does_not_hold_more_for_it(tiny_lm: Path) -> None:
    """Each row of a batch has its own copy of the keys and values: what is shared counts in ``batch_tokens``."""
    lm = exact(tiny_lm, batch_tokens=3 * (HEAD + 1 + TAIL + 1))
    with counted(lm) as passes:
        lm.choose([ask(LONG + t) for t in "abcdef"], ["A"])
    assert passes == [HEAD, *[3 * (1 + TAIL)] * 2]


def test_layers_with_a_window_share_nothing(tiny_lm: Path, tmp_path: Path) -> None:
    mistral(tiny_lm, tmp_path)
    lm, asked = exact(tmp_path), [ask(LONG + t) for t in texts(5)]
    assert not sharing(lm._model)
    assert sharing(exact(tiny_lm)._model)
    for chat, said in zip(asked, lm.choose(asked, ["A", "B"]), strict=True):
        assert said.logprobs == pytest.approx(lm.choose([chat], ["A", "B"])[0].logprobs, abs=1e-4)


PROMPTS = st.lists(
    st.lists(st.integers(0, 1), max_size=6).map(lambda bits: [b for b in bits for _ in range(PASS)]), max_size=12
)


@given(PROMPTS)
def test_groups_are_of_prompts_that_begin_alike(prompts: list[list[int]]) -> None:
    groups = shared(prompts)
    assert sorted(i for _, rows in groups for i in rows) == list(range(len(prompts)))
    for depth, rows in groups:
        assert all(prompts[i][:depth] == prompts[rows[0]][:depth] for i in rows)
        assert min(len(prompts[i]) for i in rows) >= depth
        assert depth == 0 or gain([len(prompts[i]) for i in rows], depth) > 0


@given(PROMPTS)
def test_no_partition_into_beginnings_saves_more(prompts: list[list[int]]) -> None:
    """Against all ways to take disjoint branches of the tree of beginnings, tried one after the other."""
    groups = [[prompts[i] for i in rows] for depth, rows in shared(prompts) if depth]
    depths = [depth for depth, _ in shared(prompts) if depth]
    assert sum(gain([*map(len, group)], depth) for group, depth in zip(groups, depths, strict=True)) == most(prompts, 0)


def test_long_prompts_do_not_share_a_short_beginning() -> None:
    """It costs them the fast path of attention; a long one is worth that."""
    assert shared([[0] * 60 + [i] * 1500 for i in (1, 2, 3)]) == [(0, [0, 1, 2])]
    assert shared([[0] * 60 + [i] * 100 for i in (1, 2, 3)]) == [(60, [0, 1, 2])]
    assert shared([[0] * 1500 + [i] * 100 for i in (1, 2, 3)]) == [(1500, [0, 1, 2])]


def most(prompts: Sequence[Sequence[int]], depth: int) -> int:
    """What can be saved of prompts that have their first ``depth`` tokens in common."""
    if len(prompts) < 2:
        return 0
    here = gain([*map(len, prompts)], depth)
    longer = [p for p in prompts if len(p) > depth]
    deeper = sum(most([p for p in longer if p[depth] == token], depth + 1) for token in {p[depth] for p in longer})
    return max(here, deeper, 0)
