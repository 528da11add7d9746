"""What language models share whose tokenizer and chat template are at hand: how a chat becomes tokens."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from copy import copy
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, ClassVar, Self

from rankpipe import weights
from rankpipe.catalog import need
from rankpipe.device import default_device, native_dtype
from rankpipe.errors import ModelError
from rankpipe.lm import Chat, thoughts
from rankpipe.lm.local import Adapter, loaded
from rankpipe.lm.template import ChatTemplate
from rankpipe.provenance import digest

UNBOUNDED = 10**9  # tokenizers that know no limit say 10**30
ADAPTED = ("identity", "_worn", "_held")  # what is made of an adapter, and kept


class Templated:
    """A chat model in a folder of Hugging Face's layout. Nothing is loaded before it is first used.

    It is shown chats under its own :class:`~rankpipe.lm.template.ChatTemplate`, or where its files have none under that
    of the table of models.

    :param model: an alias, a Hugging Face id or a folder.
    :param adapter: a PEFT adapter's folder, put on top of the model.
    :param dtype: the number format, as asked for.
    :param context: use no more of the model's context than this many tokens.
    :param guard: see :meth:`_guarded`.
    :param thinking: tokens that a written reply may have beside its own, to think first. With 0 a model that can do
        without (Qwen3) is told to; one that cannot (DeepSeek-R1) is refused.
    :raises RecipeError: If ``thinking`` is below 0.
    """

    component: ClassVar[str]  # its name in the catalog
    extra: ClassVar[str]  # what that needs
    device: str | None = None  # the first GPU if there is one, else the CPU

    def __init__(
        self, model: str, adapter: Path | None, dtype: str, context: int | None, guard: bool = True, thinking: int = 0
    ) -> None:
        self.model, self.dtype, self.most, self.guard = model, dtype, context, guard
        self.adapter = weights.tuned(adapter) if adapter else None
        self.thinking = thoughts.allowed(thinking)

    def with_adapter(self, adapter: Path | None) -> Self:
        """The same model under another adapter, or under none; the weights are loaded once for all of them."""
        other = copy(self)
        other.adapter = weights.tuned(adapter) if adapter else None
        for name in ADAPTED:
            vars(other).pop(name, None)
        return other

    @cached_property
    def context(self) -> int:
        """The model's positions, or its tokenizer's limit or the one given where that is less; without those tokens
        that are for thinking.

        :raises ModelError: If none of them is known, or none is left.
        """
        positions = getattr(self._config.get_text_config(), "max_position_embeddings", None)
        least = min(n for n in (positions, self._tokenizer.model_max_length, self.most, UNBOUNDED) if n is not None)
        if least == UNBOUNDED:
            raise ModelError(f"{self.model}: says nowhere how long its context is; give context=")
        return thoughts.beside(self.thinking, int(least), self.model)

    def count(self, chat: Chat) -> int:
        """Tokens of the chat under the model's chat template.

        :raises ModelError: If the model has no chat template, or it refuses the chat.
        """
        return len(self._encode(chat))

    def is_token(self, text: str, *, begin: str = "") -> bool:
        """Whether ``text`` is a single token after ``begin``."""
        return self._single(text, begin) is not None

    def parts(self, said: Sequence[str]) -> tuple[list[int], list[range]]:
        """The tokens of a chat of one message, and which of them are those of each part of the message.

        A token of two parts is the former's.

        :raises ModelError: If the tokenizer does not say where its tokens come from, or the template changes a message.
        """
        if not self._tokenizer.is_fast:
            raise ModelError(f"{self.model}: its tokenizer is a slow one, and does not say where its tokens come from")
        said = [self._guarded(part) for part in said]
        text, whole = self._text([{"role": "user", "content": "".join(said)}]), "".join(said)
        if (first := text.find(whole)) < 0:
            raise ModelError(f"{self.model}: its chat template changes what a message says")
        ends = list(accumulate(map(len, said), initial=first))
        told = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids, more = self._begun(told["input_ids"])
        places = [more + bisect_left(told["offset_mapping"], end, key=lambda offsets: offsets[0]) for end in ends]
        return ids, [range(*ends) for ends in pairwise(places)]

    @cached_property
    def number_format(self) -> str:
        """The one asked for, or what "auto" is here."""
        return self.dtype if self.dtype != "auto" else native_dtype(self.device or default_device())

    @cached_property
    def identity(self) -> str:
        """The model, its weights, its adapter's, the number format, and what else is not as usual: unguarded, thinking,
        a chat template of the table.
        """
        parts = [self.model, weights.identity(self._folder), self.number_format]
        adapter = [self._worn.identity] if self._worn else []
        thinking = [f"thinking {self.thinking}"] if self.thinking else []
        template = [f"template {digest(self._tabled)}"] if self._tabled else []
        return " ".join([*parts, *adapter, *([] if self.guard else ["unguarded"]), *thinking, *template])

    @cached_property
    def _worn(self) -> Adapter | None:
        return Adapter(self.adapter, weights.identity(self.adapter)) if self.adapter else None

    def _refuse_long(self, prompts: Sequence[list[int]], more: int) -> None:
        for ids in prompts:
            if len(ids) + more > self.context:
                raise ModelError(
                    f"{self.model}: a chat of {len(ids)} tokens and a reply of {more} do not fit into its "
                    f"context of {self.context}"
                )

    def _tokens(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]  # no warning
        return ids

    def _labels(self, choices: Sequence[str], begin: str) -> list[int]:
        """The token that each choice is after ``begin``."""
        found = [self._single(choice, begin) for choice in choices]
        tokens = [token for token in found if token is not None]
        if len(tokens) < len(found):
            choice = choices[found.index(None)]
            raise ModelError(f"{self.model}: {choice!r} after {begin!r} is no single token; take other labels")
        return tokens

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

    def _starts(self, chats: Sequence[Chat], begin: str = "") -> list[list[int]]:
        """The tokens of chats whose replies begin with ``begin``, for a model that rates what comes next.

        What of it the template says itself is not said again: Qwen3's an empty thought.

        :raises ModelError: If the model would think first.
        """
        template = self._template
        if self.thinking or (template.thought and thoughts.END not in begin):
            raise thoughts.no_first_token(self.model)
        start = self._tokens("" if template.ending.endswith(begin) else begin)
        return [self._encode(chat) + start for chat in chats]

    def _room(self, max_tokens: int) -> int:
        """The most tokens of a reply, with the thoughts before it.

        :raises ModelError: If the model cannot but think, and may not.
        """
        if self._template.thought and not self.thinking:
            raise ModelError(
                f"{self.model}: its chat template has it think before it answers; say for how long: thinking=2048"
            )
        return max_tokens + self.thinking

    def _said(self, reply: Sequence[int]) -> str:
        """What the tokens of a reply say; where the template begins a thought, with the mark of one."""
        return self._template.thought + str(self._tokenizer.decode(reply, skip_special_tokens=True))

    def _text(self, chat: Chat) -> str:
        """The chat under its template."""
        return self._template.text([{**m, "content": self._guarded(m["content"])} for m in chat])

    def _guarded(self, said: str) -> str:
        """What a message says, so that it can't pass for a token of the template (and end the message, or speak as
        another role): such text gets a blank after its first letter. Without ``guard`` it is left as it is.
        """
        return self._special.sub(_apart, said) if self.guard else said

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
    def _template(self) -> ChatTemplate:
        return ChatTemplate(self._tokenizer, self._tabled, self.model, thinks=self.thinking > 0)

    @cached_property
    def _tabled(self) -> str:
        """The chat template that the table of models has for this one, or ""."""
        known = weights.find(self.model)
        return known.chat_template if known else ""

    @cached_property
    def _special(self) -> re.Pattern[str]:
        """Every token that the tokenizer knows as special, or that was added and looks like one (``<think>``), wherever
        it stands; and the roles of the table's template, which are plain words (``USER:``).
        """
        more = self._tokenizer.added_tokens_decoder.values()
        added = (t.content for t in more if t.special or re.fullmatch(r"\s*[<\[\](|{].*\S.*", t.content))
        roles = re.findall(r"[A-Z]+:", self._tabled)
        known = sorted({*self._tokenizer.all_special_tokens, *added, *roles}, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, known)) or r"(?!)")

    @cached_property
    def _begin(self) -> list[int]:
        """The begin token, if the tokenizer puts one before a text."""
        begin = self._tokenizer.bos_token_id
        return [begin] if begin is not None and self._tokenizer("")["input_ids"][:1] == [begin] else []

    def _load(self, kind: str, **options: Any) -> Any:
        return loaded(getattr(self._need("transformers"), kind), self._folder, local_files_only=True, **options)

    def _need(self, module: str) -> Any:
        return need(module, name=self.component, extra=self.extra)


def _apart(token: re.Match[str]) -> str:
    return f"{token[0][0]} {token[0][1:]}"
