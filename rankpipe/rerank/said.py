"""What a model said to one call, how it is paid, and what the ledger has of it: the same for all that keep one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from rankpipe.data import Ranking
from rankpipe.rerank import ledger
from rankpipe.rerank.budget import Spent
from rankpipe.rerank.fit import Fitted
from rankpipe.rerank.parse import Reply


@dataclass(frozen=True, slots=True)
class Said:
    """What the model answered to one prompt, and how that was understood."""

    reply: Reply
    text: str
    tokens_in: int
    tokens_out: int
    seconds: float | None = None  # that it took when it was asked, where a cache remembers


def settle(
    ranking: Ranking, places: Sequence[int], prompt: Fitted, said: Said, spent: Spent, share_s: float,
    mended: int | None = None,
) -> None:  # fmt: skip
    """Pay one call, and note it in the ledger.

    :param places: which of the ranking's hits were shown, in the order shown.
    :param share_s: seconds of the batch, if no cache knows better.
    :param mended: what had to be mended; one if the reply was not as it should be.
    """
    seconds = share_s if said.seconds is None else said.seconds
    spent.pay(seconds, said.tokens_in, said.tokens_out, said.reply.mended if mended is None else mended)
    spent.cut.update(places[i] for i in prompt.cut)
    ledger.note(partial(_entry, ranking, places, prompt, said, seconds))


def ended(batch: Sequence[Ranking], spent: Sequence[Spent]) -> None:
    """Note in the ledger the queries that their budget ended."""
    for ranking, cost in zip(batch, spent, strict=True):
        if cost.skipped:
            ledger.end(ranking.query.id, cost.skipped)


def _entry(ranking: Ranking, places: Sequence[int], prompt: Fitted, said: Said, seconds: float) -> ledger.Entry:
    ids = [ranking.hits[i].doc.id for i in places]
    return ledger.Entry(
        query=ranking.query.id,
        docs=tuple(ids),
        messages=prompt.chat,
        reply=said.text,
        order=tuple(ids[i] for i in said.reply.order),
        kind=said.reply.kind,
        missing=said.reply.missing,
        repeated=said.reply.repeated,
        foreign=said.reply.foreign,
        cut=len(prompt.cut),
        cut_words=prompt.cut_words,
        words=prompt.words,
        tokens_in=said.tokens_in,
        tokens_out=said.tokens_out,
        seconds=seconds,
    )
