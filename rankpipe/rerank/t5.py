"""MonoT5 and DuoT5: an encoder-decoder says true or false of one passage, or of two (Nogueira et al. 2020)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import permutations
from math import exp
from pathlib import Path
from typing import Any, ClassVar, Literal

from rankpipe import weights
from rankpipe.catalog import need, require
from rankpipe.data import Query, Ranking, Step
from rankpipe.device import default_device, native_dtype
from rankpipe.errors import ModelError, RecipeError
from rankpipe.lm.local import in_batches, loaded
from rankpipe.rerank.clean import clean, harmless
from rankpipe.rerank.fit import Passage, most_words
from rankpipe.rerank.scores import rescored
from rankpipe.stage import Reranker

Dtype = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Shown:
    """One input of the model."""

    tokens: list[int]
    cut: tuple[int, ...]  # places of those hits whose passages were shortened


class T5(Reranker):
    """Asks a T5 whether what it is shown is true; a score comes from how likely the decoder begins with ``true``.

    Passages are shortened, all of an input to the same number of words, until it fits, so that ``Relevant:`` stays at
    its end, which a tokenizer's own truncation would cut. They are shown as prompts show them: on one line, with
    nothing that reads as a special token. Hits after ``depth`` stay below in their old order, with scores that fall on
    from the last one's by 1 a rank. The model is loaded at the first ranking.

    :param model: a Hugging Face id or a folder.
    :param depth: hits of a ranking that are scored.
    :param max_length: tokens of an input that are read.
    :param true: what the decoder says of a relevant passage, and ``false`` of another one (ptt5: sim, não).
    :param dtype: float32 unless told otherwise: eight bits would make ties of good passages.
    :param device: as torch names it; the first GPU if there is one, else the CPU.
    :param batch_tokens: tokens computed at once, padding included; what bounds the memory.
    :raises RecipeError: If a number is below 1.
    :raises MissingExtra: If torch or transformers is not installed.
    """

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
    ) -> None:
        numbers = {"depth": depth, "max_length": max_length, "batch_tokens": batch_tokens}
        if bad := [f"{name}: {number}; expected 1 or more" for name, number in numbers.items() if number < 1]:
            raise RecipeError(bad)
        for module in ("torch", "transformers"):
            require(module, name=self.name, extra="lm")
        self.model, self.depth, self.max_length, self.true, self.false = model, depth, max_length, true, false
        self.dtype, self.device, self.batch_tokens = dtype, device, batch_tokens

    @abstractmethod
    def pairs(self, n: int) -> Sequence[tuple[int, ...]]:
        """Which of ``n`` hits are shown together."""

    @abstractmethod
    def scores(self, n: int, said: Sequence[float]) -> list[float]:
        """The scores of ``n`` hits, from the log-probability of true for each of :meth:`pairs`."""

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        """Judge the inputs of all rankings together.

        :raises ModelError: If a query leaves no room for a word of a passage, or the memory is too small.
        """
        shown = [self._shown(r) for r in batch]
        said = iter(self._judged([one.tokens for inputs in shown for one in inputs]))
        return [self._ranking(r, inputs, [next(said) for _ in inputs]) for r, inputs in zip(batch, shown, strict=True)]

    def _ranking(self, ranking: Ranking, shown: Sequence[Shown], said: Sequence[float]) -> Ranking:
        scores = self.scores(len(ranking.hits[: self.depth]), said)
        cost = Step(
            self.name,
            calls=len(shown),
            tokens_in=sum(len(one.tokens) for one in shown),
            tokens_out=len(shown),
            cut=len({place for one in shown for place in one.cut}),
        )
        return rescored(ranking, scores, self.model).noting(cost)

    def _shown(self, ranking: Ranking) -> list[Shown]:
        hits = ranking.hits[: self.depth]
        passages = [Passage(clean(h.doc.contents), self.max_length) for h in hits]
        return [self._fit(ranking.query, places, [passages[i] for i in places]) for places in self.pairs(len(hits))]

    def _fit(self, query: Query, places: Sequence[int], passages: Sequence[Passage]) -> Shown:
        @cache
        def tokens(words: int) -> list[int]:
            text = self.wording.format(*(p.first(words) for p in passages), query=harmless(query.text))
            ids: list[int] = self._tokenizer(text, verbose=False)["input_ids"]
            return ids

        words = most_words(lambda words: len(tokens(words)), self.max_length, self.max_length)
        if not words:
            raise ModelError(
                f"{self.model}: query {query.id!r}: {len(tokens(1))} tokens with one word of a passage, but "
                f"max_length is {self.max_length}; shorten the query or raise it as far as the model can read"
            )
        return Shown(tokens(words), tuple(i for i, p in zip(places, passages, strict=True) if len(p.ends) > words))

    def _judged(self, inputs: Sequence[list[int]]) -> list[float]:
        """The log-probability of true, of true and false, for each input.

        In double precision, so that two that are almost certain still differ.
        """
        if not inputs:
            return []
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
        return loaded(kind, self._folder, local_files_only=True, dtype=dtype).to(device).eval()


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
    ) -> None:
        super().__init__(model, depth, max_length, true, false, dtype, device, batch_tokens)

    def pairs(self, n: int) -> Sequence[tuple[int, ...]]:
        """Each by itself."""
        return [(i,) for i in range(n)]

    def scores(self, n: int, said: Sequence[float]) -> list[float]:  # noqa: ARG002
        """As the model says."""
        return list(said)


class DuoT5(T5):
    """Compares each two passages in both orders (Pradeep et al. 2021), so that ``depth`` hits cost depth times
    depth - 1 forward passes; the paper compares 50 after a MonoT5, we 10 unless told otherwise.

    The score is the paper's SYM-SUM: how often a passage is expected to win, 0 to 2 (depth - 1), each comparison in
    both orders; it compares within a query.

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
    ) -> None:
        super().__init__(model, depth, max_length, true, false, dtype, device, batch_tokens)

    def pairs(self, n: int) -> Sequence[tuple[int, ...]]:
        """Each before each other one."""
        return list(permutations(range(n), 2))

    def scores(self, n: int, said: Sequence[float]) -> list[float]:
        """The sum over j of p(i before j) + 1 - p(j before i)."""
        won = [0.0] * n
        for (i, j), logprob in zip(self.pairs(n), said, strict=True):
            p = exp(logprob)
            won[i], won[j] = won[i] + p, won[j] + 1 - p
        return won
