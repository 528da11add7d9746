"""RankLLM, as the benchmarks need it: reranks our rankings in its batched way, and says what that took.

It runs in an environment of its own (``make rankllm-env``), on vLLM for the CPU.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

from rankpipe import Hit, Ranking
from rankpipe.data import Step

UNWANTED = "rank_llm.rerank.listwise.lit5.model"  # does not import with transformers 5; RankFiD alone has need of it
BIND = "VLLM_CPU_OMP_THREADS_BIND"
FIRST_OUT = 2  # tokens of a reply in its FIRST, of which it rates the second; it counts the letters of what it read


class RankLLM:
    """Its ``RankListwiseOSLLM``, generating or (``first``) rating the first label; two of one model share an engine.

    :param folder: of the model.
    :param cores: that its engine computes on, as VLLM_CPU_OMP_THREADS_BIND has them (``0-1``). Left to itself ("auto")
        vLLM keeps one core free for what is not computing, which of two is half the machine.
    :param one_by_one: a call for each query, as ``Reranker.rerank`` makes them; else ``rerank_batch``, as its command
        line does, where the n-th windows of all queries are one batch.
    """

    def __init__(self, folder: Path, first: bool = False, one_by_one: bool = False, cores: str = "auto") -> None:
        self.first, self.one_by_one = first, one_by_one
        self.model = _coordinator(str(folder), first, cores)

    def __call__(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        """Reranked, with what it cost in the last step."""
        from rank_llm.rerank.reranker import Reranker

        requests = [_request(r) for r in rankings]
        batches = [[r] for r in requests] if self.one_by_one else [requests]
        ask = Reranker(self.model).rerank_batch
        found = [f for batch in batches for f in ask(batch, populate_invocations_history=True)]
        return [self._ranking(r, f) for r, f in zip(rankings, found, strict=True)]

    @property
    def engine(self) -> Any:
        """Its ``vllm.LLM``."""
        return self.model._vllm_handler._vllm

    def prompt(self, ranking: Ranking, start: int, end: int) -> str:
        """What it shows the model of a window."""
        from rank_llm.data import Result

        request = _request(ranking)
        return str(self.model.create_prompt(Result(request.query, request.candidates, []), start, end)[0])

    def _ranking(self, ranking: Ranking, found: Any) -> Ranking:
        places = {h.doc.id: p for p, h in enumerate(ranking.hits)}
        said = found.invocations_history
        spent = Step(
            "RankLLM",
            calls=len(said),
            tokens_in=sum(i.input_token_count for i in said),
            tokens_out=FIRST_OUT * len(said) if self.first else sum(i.output_token_count for i in said),
        )
        return ranking.reordered([places[c.docid] for c in found.candidates]).noting(spent)


def _request(ranking: Ranking) -> Any:
    from rank_llm.data import Candidate, Query, Request

    hits: Sequence[Hit] = ranking.hits
    candidates = [Candidate(h.doc.id, h.score, {"text": h.doc.text, "title": h.doc.title}) for h in hits]
    return Request(Query(ranking.query.text, ranking.query.id), candidates)


@cache
def _coordinator(folder: str, first: bool, cores: str) -> Any:
    stub = ModuleType(UNWANTED)
    stub.FiD = stub.FiDCrossAttentionScore = None  # type: ignore[attr-defined]
    sys.modules.setdefault(UNWANTED, stub)
    os.environ.setdefault("OPENAI_API_KEY", "none")  # its package asks for one when it is imported
    from rank_llm.rerank.listwise import rank_listwise_os_llm as theirs

    logging.getLogger("rank_llm").setLevel(logging.WARNING)
    theirs.VllmHandler = partial(_engine, cores)
    return theirs.RankListwiseOSLLM(model=folder, use_logits=first, use_alpha=first)


@cache
def _engine(cores: str, **options: Any) -> Any:
    """Its engine on these cores, made once."""
    from rank_llm.rerank.vllm_handler import VllmHandler

    before = os.environ.get(BIND)
    os.environ[BIND] = cores
    try:
        return VllmHandler(**options)
    finally:
        if before is None:
            del os.environ[BIND]
        else:
            os.environ[BIND] = before
