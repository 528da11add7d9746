"""MonoT5 and DuoT5: an encoder-decoder says true or false of one passage, or of two (Nogueira et al. 2020)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cache, cached_property
from itertools import permutations
from math import exp
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar, Literal, NamedTuple

from rankpipe import weights
from rankpipe.catalog import need, require
from rankpipe.data import Query, Ranking
from rankpipe.device import default_device, native_dtype
from rankpipe.errors import ModelError, RecipeError
from rankpipe.lm.local import in_batches, loaded, whole
from rankpipe.rerank.budget import Budget, Spent, spend
from rankpipe.rerank.clean import clean, harmless
from rankpipe.rerank.fit import MUCH, Fitted, Passage, most_pieces, most_words
from rankpipe.rerank.parse import Reply
from rankpipe.rerank.said import Said, ended, settle
from rankpipe.rerank.scores import rescored
from rankpipe.stage import Reranker

Dtype = Literal["auto", "float32", "bfloat16"]


class Shown(NamedTuple):
    """One input of the model."""

    q: int  # which query of the batch
    places: tuple[int, ...]  # which of its hits
    tokens: list[int]
    prompt: Fitted


class T5(Reranker):
    """Asks a T5 whether what it is shown is true; a score comes from how likely the decoder begins with ``true``.

    Passages are shortened, all of an input to the same number of words, until it fits, so that ``Relevant:`` stays at
    its end, which a tokenizer's own truncation would cut. They are shown as prompts show them: on one line, with
    nothing that reads as a special token. Hits after ``depth``, and those that the budget did not allow, stay below in
    their old order, with scores that fall on from the last one's by 1 a rank. The model is loaded at the first ranking.

    :param model: a Hugging Face id or a folder.
    :param depth: hits of a ranking that are scored.
    :param max_length: tokens of an input that are read.
    :param true: what the decoder says of a relevant passage (ptt5: sim).
    :param false: what it says of another one (ptt5: não).
    :param dtype: float32 unless told otherwise: eight bits would make ties of good passages.
    :param device: as torch names it; the first GPU if there is one, else the CPU.
    :param batch_tokens: tokens computed at once, padding included; what bounds the memory.
    :param budget: the most that one query may cost.
    :raises RecipeError: If a number is below 1.
    :raises MissingExtra: If torch or transformers is not installed.
    """

    tells = True
    counts = "inputs"
    wording: ClassVar[str]  # with {query} and places for the passages

    def __init__(
        self,
        model: str,
        depth: int,
        max_length: int,
        true: str,
        false: str,
        dtype: Dtype,
        device: str | None,
        batch_tokens: int,
        budget: Budget,
    ) -> None:
        numbers = {"depth": depth, "max_length": max_length, "batch_tokens": batch_tokens}
        if bad := [f"{name}: {number}; expected 1 or more" for name, number in numbers.items() if number < 1]:
            raise RecipeError(bad)
        for module in ("torch", "transformers"):
            require(module, name=self.name, extra="lm")
        self.model, self.depth, self.max_length, self.true, self.false = model, depth, max_length, true, false
        self.dtype, self.device, self.batch_tokens, self.budget = dtype, device, batch_tokens, budget

    @abstractmethod
    def pairs(self, n: int) -> Sequence[tuple[int, ...]]:
        """Which of ``n`` hits are shown together."""

    @abstractmethod
    def scores(self, n: int, said: Sequence[float]) -> list[float | None]:
        """The scores of ``n`` hits, from the log-probability of true for the first of :meth:`pairs`; None for one that
        none of these shows.
        """

    def work(self, ranking: Ranking) -> int:
        """All that the model is shown."""
        return self.budget.most(len(self.pairs(min(len(ranking.hits), self.depth))))

    def refuse(self, ranking: Ranking) -> None:
        """Refuse a query too long for the first passages that are shown.

        :raises ModelError: If it is.
        """
        hits = ranking.hits[: self.depth]
        if len(ranking.query.text) >= MUCH and (pairs := self.pairs(len(hits))):
            self._fit(ranking.query, [Passage(clean(hits[i].doc.contents), self.max_length) for i in pairs[0]])

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        """Judge the inputs of all rankings together.

        :raises ModelError: If a query leaves no room for a word of a passage, or the memory is too small.
        """
        spent = [Spent() for _ in batch]
        said: list[list[float]] = [[] for _ in batch]
        heads = [r.hits[: self.depth] for r in batch]
        passages = cache(lambda q: [Passage(clean(h.doc.contents), self.max_length) for h in heads[q]])

        def make(q: int, places: tuple[int, ...]) -> tuple[Shown, int]:
            tokens, prompt = self._fit(batch[q].query, [passages(q)[i] for i in places])
            return Shown(q, places, tokens, prompt), prompt.tokens + prompt.max_tokens

        def ask(shown: list[Shown]) -> None:
            _ = self._loaded  # not in the first ones' seconds
            start = perf_counter()
            judged = self._judged([one.tokens for one in shown])
            share_s = (perf_counter() - start) / len(shown)
            for one, logprob in zip(shown, judged, strict=True):
                said[one.q].append(logprob)
                answer = Said(_reply(one, logprob), f"{self.true} {exp(logprob):.6g}", len(one.tokens), 1)
                settle(batch[one.q], one.places, one.prompt, answer, spent[one.q], share_s)

        spend(self.budget, spent, [self.pairs(len(hits)) for hits in heads], make, ask)
        ended(batch, spent)
        return [
            rescored(r, self.scores(len(hits), judged), self.model).noting(cost.step(self.name))
            for r, hits, judged, cost in zip(batch, heads, said, spent, strict=True)
        ]

    def _fit(self, query: Query, passages: Sequence[Passage]) -> tuple[list[int], Fitted]:
        """An input's tokens, and what they say."""

        def text(pieces: int) -> str:
            return self.wording.format(*(p.first(pieces) for p in passages), query=harmless(query.text))

        @cache
        def tokens(pieces: int) -> list[int]:
            ids: list[int] = self._tokenizer(text(pieces), verbose=False)["input_ids"]
            return ids

        most = most_pieces(passages, self.max_length)
        pieces = most_words(lambda pieces: len(tokens(pieces)), self.max_length, most)
        if not pieces:
            raise ModelError(
                f"{self.model}: query {query.id!r}: {len(tokens(1))} tokens with one word of a passage, but "
                f"max_length is {self.max_length}; shorten the query or raise it as far as the model can read"
            )
        told = {"chat": [{"role": "input", "content": text(pieces)}], "tokens": len(tokens(pieces)), "max_tokens": 1}
        return tokens(pieces), Fitted.of(passages, pieces, self.max_length, **told)

    def _judged(self, inputs: Sequence[list[int]]) -> list[float]:
        """The log-probability of true, of true and false, for each input.

        In double precision, so that two that are almost certain still differ.
        """
        torch = need("torch", name=self.name, extra="lm")
        model, wanted = self._loaded, [self._word(self.false), self._word(self.true)]
        config = model.config

        def forward(batch: Sequence[int]) -> list[float]:
            width = max(len(inputs[i]) for i in batch)
            padded = [inputs[i] + [config.pad_token_id] * (width - len(inputs[i])) for i in batch]
            ids = torch.tensor(padded, device=model.device)  # (B, T)
            mask = torch.tensor([[i < len(inputs[b]) for i in range(width)] for b in batch], device=model.device)
            start = torch.full((len(batch), 1), config.decoder_start_token_id, device=model.device)
            out = model(input_ids=ids, attention_mask=mask.long(), decoder_input_ids=start)
            logits = out.logits[:, 0, wanted].double()  # (B, 2)
            made: list[float] = logits.log_softmax(-1)[:, 1].tolist()
            return made

        return in_batches(inputs, forward, self.batch_tokens, self.model)

    def _word(self, word: str) -> int:
        ids: list[int] = self._tokenizer(word, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise ModelError(f"{self.model}: {word!r} is {len(ids)} tokens, expected one; what does this model say?")
        return ids[0]

    @cached_property
    def _folder(self) -> Path:
        return weights.resolve(self.model)

    @cached_property
    def _tokenizer(self) -> Any:
        return loaded(need("transformers", name=self.name, extra="lm").AutoTokenizer, self._folder)

    @cached_property
    def _loaded(self) -> Any:
        torch = need("torch", name=self.name, extra="lm")
        device = self.device or default_device()
        dtype = getattr(torch, native_dtype(device) if self.dtype == "auto" else self.dtype)
        kind = need("transformers", name=self.name, extra="lm").AutoModelForSeq2SeqLM
        return whole(kind, self._folder, dtype=dtype).to(device).eval()


class MonoT5(T5):
    """Scores each passage by the log-probability that it is relevant (Nogueira et al. 2020), so from minus infinity
    to 0; it compares across queries.

    See :class:`T5` for the arguments.
    """

    batch = 8
    wording = "Query: {query} Document: {0} Relevant:"

    def __init__(
        self,
        model: str = "castorini/monot5-base-msmarco",
        depth: int = 100,
        max_length: int = 512,
        true: str = "true",
        false: str = "false",
        dtype: Dtype = "float32",
        device: str | None = None,
        batch_tokens: int = 16_384,
        budget: Budget = Budget(),  # noqa: B008  frozen
    ) -> None:
        super().__init__(model, depth, max_length, true, false, dtype, device, batch_tokens, budget)

    def pairs(self, n: int) -> Sequence[tuple[int, ...]]:
        """Each by itself."""
        return [(i,) for i in range(n)]

    def scores(self, n: int, said: Sequence[float]) -> list[float | None]:  # noqa: ARG002
        """As the model says."""
        return list(said)


class DuoT5(T5):
    """Compares each two passages in both orders (Pradeep et al. 2021), so that ``depth`` hits cost depth times
    depth - 1 forward passes; the paper compares 50 after a MonoT5, we 10 unless told otherwise.

    The score is the paper's SYM-SUM: how often a passage is expected to win, 0 to 2 (depth - 1), each comparison in
    both orders; it compares within a query. A comparison that the budget did not allow is half a win for both.

    See :class:`T5` for the arguments.
    """

    batch = 1
    wording = "Query: {query} Document0: {0} Document1: {1} Relevant:"

    def __init__(
        self,
        model: str = "castorini/duot5-base-msmarco",
        depth: int = 10,
        max_length: int = 1024,
        true: str = "true",
        false: str = "false",
        dtype: Dtype = "float32",
        device: str | None = None,
        batch_tokens: int = 16_384,
        budget: Budget = Budget(),  # noqa: B008  frozen
    ) -> None:
        super().__init__(model, depth, max_length, true, false, dtype, device, batch_tokens, budget)

    def pairs(self, n: int) -> Sequence[tuple[int, ...]]:
        """Each before each other one."""
        return list(permutations(range(n), 2))

    def scores(self, n: int, said: Sequence[float]) -> list[float | None]:
        """The sum over j of p(i before j) + 1 - p(j before i)."""
        pairs = self.pairs(n)
        won, chances = [0.0] * n, [*map(exp, said), *[0.5] * (len(pairs) - len(said))]
        for (i, j), p in zip(pairs, chances, strict=True):
            won[i], won[j] = won[i] + p, won[j] + 1 - p
        met = {i for pair in pairs[: len(said)] for i in pair}
        return [w if i in met or not pairs else None for i, w in enumerate(won)]


def _reply(shown: Shown, logprob: float) -> Reply:
    """Of two passages the first is the better one if that is likelier than not."""
    order = tuple(range(len(shown.places)))
    return Reply(order if exp(logprob) >= 0.5 else order[::-1])
