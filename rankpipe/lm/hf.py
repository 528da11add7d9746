"""Language models run by transformers in this process, on the CPU or one GPU."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

from rankpipe import weights
from rankpipe.catalog import need, require
from rankpipe.device import default_device, native_dtype
from rankpipe.errors import ModelError, RecipeError
from rankpipe.lm import Chat, Choice, Completion, Likelihood
from rankpipe.lm.attention import Looks, attention_to
from rankpipe.lm.local import in_batches, loaded

T = TypeVar("T")
UNBOUNDED = 10**9  # tokenizers that know no limit say 10**30


class HF:
    """A causal language model with a chat template. Nothing is loaded before it is first used.

    Replies are greedy: of the model's own generation settings only the stop tokens are kept, no sampling, no
    repetition penalty. Chats are sorted by length and padded on the left.

    :param model: an alias, a Hugging Face id or a folder.
    :param adapter: a PEFT adapter's folder, put on top of the model.
    :param dtype: "auto" is bfloat16 on a GPU and on CPUs with instructions for it, elsewhere float32, which is
        several times faster than emulated bfloat16.
    :param device: as torch names it; the first GPU if there is one, else the CPU.
    :param context: use no more of the model's context than this many tokens (RankLLM: 4096).
    :param batch_tokens: tokens computed at once, padding and replies included; what bounds the memory. One chat goes
        in even if it is longer.
    :raises MissingExtra: If torch, transformers or, for an adapter, peft is not installed.
    """

    together = 16  # queries

    def __init__(
        self,
        model: str = "smollm2",
        adapter: Path | None = None,
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        device: str | None = None,
        context: int | None = None,
        batch_tokens: int = 16_384,
    ) -> None:
        for module in ("torch", "transformers", *(["peft"] if adapter else [])):
            require(module, name="hf", extra="lm")
        if batch_tokens < 1 or (context is not None and context < 1):
            raise RecipeError([f"context={context}, batch_tokens={batch_tokens}: must be 1 or more"])
        self.model, self.adapter, self.dtype, self.device = model, adapter, dtype, device
        self.most, self.batch_tokens = context, batch_tokens

    @cached_property
    def context(self) -> int:
        """The model's positions, or its tokenizer's limit or the one given where that is less.

        :raises ModelError: If none of them is known.
        """
        positions = getattr(self._config.get_text_config(), "max_position_embeddings", None)
        least = min(n for n in (positions, self._tokenizer.model_max_length, self.most, UNBOUNDED) if n is not None)
        if least == UNBOUNDED:
            raise ModelError(f"{self.model}: says nowhere how long its context is; give context=")
        return int(least)

    def count(self, chat: Chat) -> int:
        """Tokens of the chat under the model's chat template.

        :raises ModelError: If the model has no chat template, or it refuses the chat.
        """
        return len(self._encode(chat))

    def complete(self, chats: Sequence[Chat], *, max_tokens: int) -> Sequence[Completion]:
        """One greedy completion for each chat.

        :raises ModelError: If a chat is too long for the context, or a batch for the memory.
        """
        prompts = [self._encode(chat) for chat in chats]
        self._refuse_long(prompts, max_tokens)
        return self._batches(prompts, max_tokens, lambda batch: self._generate([prompts[i] for i in batch], max_tokens))

    def is_token(self, text: str, *, begin: str = "") -> bool:
        """Whether ``text`` is a single token after ``begin``."""
        return self._single(text, begin) is not None

    def choose(self, chats: Sequence[Chat], choices: Sequence[str], *, begin: str = "") -> Sequence[Choice]:
        """The log-probabilities of ``choices`` as the next token, from one forward pass for each chat.

        :raises ModelError: If a choice is no single token after ``begin``, or a chat is too long.
        """
        start = self._tokens(begin)
        wanted = [self._single(choice, begin) for choice in choices]
        if None in wanted:
            choice = choices[wanted.index(None)]
            raise ModelError(f"{self.model}: {choice!r} after {begin!r} is no single token; take other labels")
        prompts = [self._encode(chat) + start for chat in chats]
        self._refuse_long(prompts, 1)

        def forward(batch: Sequence[int]) -> list[Choice]:
            logprobs = self._logprobs([prompts[i] for i in batch], 1)[:, -1, wanted].tolist()  # (B, choices)
            return [Choice(tuple(row), len(prompts[i])) for i, row in zip(batch, logprobs, strict=True)]

        return self._batches(prompts, 1, forward)

    def likelihood(self, chats: Sequence[Chat], replies: Sequence[str]) -> Sequence[Likelihood]:
        """The log-probability of each reply after its chat, from one forward pass.

        :raises ModelError: If a chat with its reply is too long.
        """
        torch = need("torch", name="hf", extra="lm")
        said = [self._tokens(reply) for reply in replies]
        prompts = [self._encode(chat) + reply for chat, reply in zip(chats, said, strict=True)]
        self._refuse_long(prompts, 0)

        def forward(batch: Sequence[int]) -> list[Likelihood]:
            keep = max(len(said[i]) for i in batch) + 1
            logprobs = self._logprobs([prompts[i] for i in batch], keep)  # (B, keep, vocabulary)
            rows = []
            for i, row in zip(batch, logprobs, strict=True):
                n = len(said[i])
                tokens = torch.tensor(said[i], device=row.device)[:, None]
                total = row[-n - 1 : -1].gather(1, tokens).sum().item() if n else 0.0
                rows.append(Likelihood(total, n, len(prompts[i]) - n))
            return rows

        return self._batches(prompts, 0, forward)

    def parts(self, said: Sequence[str]) -> tuple[list[int], list[range]]:
        """The tokens of a chat of one message, and which of them are those of each part of the message.

        A token of two parts is the former's.

        :raises ModelError: If the tokenizer does not say where its tokens come from, or the template changes a message.
        """
        if not self._tokenizer.is_fast:
            raise ModelError(f"{self.model}: its tokenizer is a slow one, and does not say where its tokens come from")
        said = [self._special.sub(_apart, part) for part in said]
        text, whole = self._text([{"role": "user", "content": "".join(said)}]), "".join(said)
        if (first := text.find(whole)) < 0:
            raise ModelError(f"{self.model}: its chat template changes what a message says")
        ends = list(accumulate(map(len, said), initial=first))
        told = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, more = self._begun(told["input_ids"])
        places = [more + bisect_left(told["offset_mapping"], end, key=lambda offsets: offsets[0]) for end in ends]
        return ids, [range(*ends) for ends in pairwise(places)]

    def attention(self, start: Sequence[int], ends: Sequence[Sequence[int]]) -> list[Looks]:
        """How much each token of ``start`` is looked at from each of ``ends``: see :func:`attention_to`.

        :raises ModelError: If the tokens do not fit into the context or the memory, or the model's attention is not to
            be had.
        """
        longest = max(map(len, ends))
        self._refuse_long([[*start]], longest)
        return self._batches([[*start]], longest, lambda _: [attention_to(self._model, start, ends)])[0]

    @cached_property
    def identity(self) -> str:
        """The model, its weights, its adapter's, and the number format."""
        parts = [self.model, weights.identity(self._folder), self.dtype]
        return " ".join(parts + ([weights.identity(self.adapter)] if self.adapter else []))

    def _batches(self, prompts: Sequence[list[int]], more: int, work: Callable[[Sequence[int]], list[T]]) -> list[T]:
        if prompts:
            _ = self._model  # loaded first: what is made inside may be no ordinary tensor
        return in_batches(prompts, work, self.batch_tokens, self.model, more)

    def _refuse_long(self, prompts: Sequence[list[int]], more: int) -> None:
        for ids in prompts:
            if len(ids) + more > self.context:
                raise ModelError(
                    f"{self.model}: a chat of {len(ids)} tokens and a reply of {more} do not fit into its "
                    f"context of {self.context}"
                )

    def _tokens(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _single(self, text: str, begin: str) -> int | None:
        """The one token that ``text`` is after ``begin``; letters, digits and such are, whatever stands before."""
        start, both = self._tokens(begin), self._tokens(begin + text)
        return both[-1] if both[:-1] == start and len(both) == len(start) + 1 else None

    def _encode(self, chat: Chat) -> list[int]:
        """The chat's tokens."""
        return self._begun(self._tokens(self._text(chat)))[0]

    def _begun(self, ids: list[int]) -> tuple[list[int], int]:
        """The tokenizer's begin token is put first where the template has not (Zephyr's); how many that are."""
        more = [] if ids[: len(self._begin)] == self._begin else self._begin
        return more + ids, len(more)

    def _text(self, chat: Chat) -> str:
        """The chat under its template.

        What a message says can't pass for a token of the template: such text gets a blank after its first letter.
        """
        jinja2 = need("jinja2", name="hf", extra="lm")
        if self._tokenizer.chat_template is None:
            raise ModelError(
                f"{self.model}: its tokenizer has no chat template, so it is probably no model for instructions; take "
                f"one that is, or put a chat_template.jinja into {self._folder}"
            )
        try:
            text: str = self._tokenizer.apply_chat_template(
                [{**m, "content": self._special.sub(_apart, m["content"])} for m in chat],
                tokenize=False,
                add_generation_prompt=True,
            )
        except jinja2.TemplateError as error:
            roles = ", ".join(m["role"] for m in chat)
            raise ModelError(f"{self.model}: its chat template refuses the messages ({roles}): {error}") from error
        return text

    def _generate(self, prompts: Sequence[list[int]], max_tokens: int) -> list[Completion]:
        model = self._model
        ids, mask = self._padded(prompts)  # (B, T)
        out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=max_tokens)
        new = out[:, ids.shape[1] :].tolist()
        return [self._completion(len(p), reply) for p, reply in zip(prompts, new, strict=True)]

    def _logprobs(self, prompts: Sequence[list[int]], keep: int) -> Any:
        """Of every token at the last ``keep`` places: (B, keep, vocabulary), float32. What is computed and thrown
        away is the rest's vocabulary, which is the larger part of a small model's memory.
        """
        ids, mask = self._padded(prompts)
        places = (mask.cumsum(-1) - 1).clamp(min=0)
        out = self._model(input_ids=ids, attention_mask=mask, position_ids=places, logits_to_keep=keep)
        return out.logits.float().log_softmax(-1)

    def _padded(self, prompts: Sequence[list[int]]) -> tuple[Any, Any]:
        """Token ids and the mask of what is not padding, both (B, T); padded on the left."""
        torch = need("torch", name="hf", extra="lm")
        model = self._model
        width, pad = max(map(len, prompts)), model.generation_config.pad_token_id
        ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=model.device)
        return ids, torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)

    def _completion(self, tokens_in: int, new: list[int]) -> Completion:
        stops = set(self._model.generation_config.eos_token_id)
        length = next((i + 1 for i, token in enumerate(new) if token in stops), len(new))
        return Completion(self._tokenizer.decode(new[:length], skip_special_tokens=True), tokens_in, length)

    @cached_property
    def _folder(self) -> Path:
        return weights.resolve(self.model)

    @cached_property
    def _config(self) -> Any:
        return self._load("AutoConfig")

    @cached_property
    def _tokenizer(self) -> Any:
        return self._load("AutoTokenizer")

    @cached_property
    def _special(self) -> re.Pattern[str]:
        """Every token that the tokenizer knows as special, wherever it stands."""
        added = (t.content for t in self._tokenizer.added_tokens_decoder.values() if t.special)
        known = sorted({*self._tokenizer.all_special_tokens, *added}, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, known)) or r"(?!)")

    @cached_property
    def _begin(self) -> list[int]:
        """The begin token, if the tokenizer puts one before a text."""
        begin = self._tokenizer.bos_token_id
        return [begin] if begin is not None and self._tokenizer("")["input_ids"][:1] == [begin] else []

    @cached_property
    def _model(self) -> Any:
        torch = need("torch", name="hf", extra="lm")
        transformers = need("transformers", name="hf", extra="lm")
        device = self.device or default_device()
        name = self.dtype if self.dtype != "auto" else native_dtype(device)
        model = self._load("AutoModelForCausalLM", dtype=getattr(torch, name))
        if self.adapter:
            model = loaded(need("peft", name="hf", extra="lm").PeftModel, self.adapter, model)
        said = model.generation_config.eos_token_id  # None, one or several
        stops = {self._tokenizer.eos_token_id, *(said if isinstance(said, list) else [said])} - {None}
        pad = self._tokenizer.pad_token_id
        model.generation_config = transformers.GenerationConfig(
            do_sample=False, eos_token_id=sorted(stops), pad_token_id=min(stops) if pad is None else pad
        )
        return model.to(device).eval()

    def _load(self, kind: str, **options: Any) -> Any:
        loader = getattr(need("transformers", name="hf", extra="lm"), kind)
        return loaded(loader, self._folder, local_files_only=True, **options)


def _apart(token: re.Match[str]) -> str:
    return f"{token[0][0]} {token[0][1:]}"
