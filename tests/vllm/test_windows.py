"""40 windows of TREC DL19, 20 passages each: transformers and vLLM give the same orders, but where two tokens are as
likely. In single precision; ``eval/bench/engines.py`` has bfloat16 too.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from rankpipe.lm.hf import HF
from rankpipe.lm.vllm import VLLM

BENCH = Path(__file__).parents[2] / "eval" / "bench"
WINDOWS = 40
CLOSE = 1e-3  # of log-probabilities


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["listwise", "first"])
def test_the_same_orders(kind: str, hf: HF, vllm: VLLM, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    import engines

    given = engines.windows(data_root, WINDOWS)
    ours, theirs = (engines.Run.of(kind, lm, given) for lm in (hf, vllm))
    assert all(len(order) == 20 for order in ours.orders)
    assert len(ours.orders) == WINDOWS
    apart = engines.partings(hf, ours, theirs)
    assert all(abs(gap) < CLOSE for gap in apart), apart
    differ = sum(a != b for a, b in zip(ours.orders, theirs.orders, strict=True))
    assert differ <= len(apart), "an order differs although the answers are the same"
    if kind == "first":
        for one, other in zip(ours.heard.answers, theirs.heard.answers, strict=True):
            assert other.logprobs == pytest.approx(one.logprobs, abs=CLOSE)
