"""Do transformers and vLLM give the same orders? SmolLM2 over windows of TREC DL19: BM25's first 20 of each query.

.venv-vllm/bin/python eval/bench/engines.py [--windows 40] [--dtypes float32 bfloat16] [--into FOLDER]

Greedy on both sides, the same tokens in. Where orders differ, the gap is between the log-probabilities that
transformers gives to the two tokens (or labels) at which the engines part.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from common import DATA, HERE, Row, file

from rankpipe.data import Ranking
from rankpipe.datasets import open_dataset, rankings
from rankpipe.lm import LM, Chat
from rankpipe.lm.hf import HF
from rankpipe.lm.vllm import VLLM
from rankpipe.rerank.first import First
from rankpipe.rerank.listwise import Listwise
from rankpipe.rerank.plans import Single
from rankpipe.stage import Top
from rankpipe.trec import read_run

KINDS = {"listwise": Listwise, "first": First}
CONTEXT = 4096
HELLO: Chat = [{"role": "user", "content": "Hello"}]


def main() -> None:
    """Compare, and file the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[*KINDS])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--into", type=Path, default=HERE, help="where the result is filed")
    told = parser.parse_args()
    given = windows(DATA, told.windows)
    rows = []
    for dtype in told.dtypes:
        engines = {"hf": HF("smollm2", dtype=dtype, context=CONTEXT), "vllm": VLLM(dtype=dtype, context=CONTEXT)}
        loading = {name: seconds(lm) for name, lm in engines.items()}
        for kind in told.kinds:
            made = {name: Run.of(kind, lm, given) for name, lm in engines.items()}
            apart = partings(engines["hf"], made["hf"], made["vllm"])
            rows.append(row(kind, dtype, made, apart, loading))
            print(rows[-1], [f"{gap:.2g}" for gap in apart], flush=True)
    file("engines", rows, told.into)


def windows(data: Path, n: int) -> list[Ranking]:
    """The first 20 hits of the first ``n`` queries."""
    pool = data / "trec-dl19-pool"
    return list(Top(20)(rankings(read_run(pool / "runs" / "BM25.trec").run, open_dataset(pool))[:n]))


def seconds(lm: LM) -> float:
    """How long a model takes to its first word."""
    start = perf_counter()
    lm.complete([HELLO], max_tokens=1)
    return perf_counter() - start


@dataclass
class Heard:
    """A model whose chats and answers are kept."""

    lm: Any
    chats: list[Chat] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lm, name)

    def complete(self, chats: Sequence[Chat], *, max_tokens: int) -> Any:
        """The model's."""
        return self._kept(chats, self.lm.complete(chats, max_tokens=max_tokens))

    def choose(self, chats: Sequence[Chat], choices: Sequence[str], *, begin: str = "") -> Any:
        """The model's."""
        return self._kept(chats, self.lm.choose(chats, choices, begin=begin))

    def _kept(self, chats: Sequence[Chat], answers: Any) -> Any:
        self.chats += chats
        self.answers += answers
        return answers


@dataclass
class Run:
    """What one engine made of all windows."""

    orders: list[list[str]]
    heard: Heard
    seconds: float

    @classmethod
    def of(cls, kind: str, lm: LM, given: Sequence[Ranking]) -> Run:
        """Rerank each window once."""
        heard, start = Heard(lm), perf_counter()
        made = KINDS[kind](heard, plan=Single(), depth=20).run(given)  # type: ignore[arg-type]
        return cls([[hit.doc.id for hit in r.hits] for r in made], heard, perf_counter() - start)


def partings(hf: HF, ours: Run, theirs: Run) -> list[float]:
    """For each window whose answers differ, how much likelier transformers finds its own way where they part."""
    gaps = []
    for chat, a, b, one, other in zip(
        ours.heard.chats, ours.heard.answers, theirs.heard.answers, ours.orders, theirs.orders, strict=True
    ):
        if hasattr(a, "text"):
            if a.text != b.text:
                gaps.append(written_apart(hf, chat, hf._tokens(a.text), hf._tokens(b.text)))
        elif one != other:
            gaps.append(rated_apart(a.logprobs, b.logprobs))
    return gaps


def written_apart(hf: HF, chat: Chat, one: list[int], other: list[int]) -> float:
    """The gap between the first tokens that differ; a reply that ends goes on with the stop token."""
    stop = hf._tokenizer.eos_token_id
    one, other = [*one, stop], [*other, stop]
    place = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    torch = hf._need("torch")
    with torch.inference_mode():
        logits = hf._model(torch.tensor([hf._encode(chat) + one[:place]], device=hf._model.device)).logits[0, -1]
        logprobs = logits.float().log_softmax(-1)
    return float(logprobs[one[place]] - logprobs[other[place]])


def rated_apart(one: Sequence[float], other: Sequence[float]) -> float:
    """The gap between the first two labels that stand at the same place of the two orders."""
    ranked = [sorted(range(len(p)), key=lambda i: -p[i]) for p in (one, other)]
    a, b = next((a, b) for a, b in zip(*ranked, strict=True) if a != b)
    return one[a] - one[b]


def row(kind: str, dtype: str, made: dict[str, Run], apart: list[float], loading: dict[str, float]) -> Row:
    """One line of the table."""
    n = len(made["hf"].orders)
    answers = zip(made["hf"].heard.answers, made["vllm"].heard.answers, strict=True)
    off = [
        abs(x - y) for a, b in answers if hasattr(a, "logprobs") for x, y in zip(a.logprobs, b.logprobs, strict=True)
    ]
    return {
        "reranker": kind,
        "dtype": dtype,
        "windows": n,
        "same order": sum(a == b for a, b in zip(made["hf"].orders, made["vllm"].orders, strict=True)),
        "same answer": n - len(apart),
        "largest gap": round(max(apart), 5) if apart else None,
        "log-probabilities off by": round(max(off), 5) if off else None,
        "s a window, hf": round(made["hf"].seconds / n, 2),
        "s a window, vllm": round(made["vllm"].seconds / n, 2),
        "s to load, hf": round(loading["hf"], 1),
        "s to load, vllm": round(loading["vllm"], 1),
    }


if __name__ == "__main__":
    main()
