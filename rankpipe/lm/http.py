"""Language models behind any server that speaks OpenAI's chat completions: vLLM, llama.cpp, Ollama, OpenAI itself."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import inf
from pathlib import Path
from threading import Event, Lock
from typing import Any, NoReturn, TypeGuard, TypeVar

from rankpipe.catalog import near
from rankpipe.errors import ModelError, RecipeError
from rankpipe.lm import Chat, Choice, Completion, thoughts
from rankpipe.lm.sizes import Sizes
from rankpipe.lm.wire import Fault, Manners, Refusal, Wire
from rankpipe.lm.words import words

A = TypeVar("A", Completion, Choice)
OURS = {"model", "messages", "max_tokens", "max_completion_tokens", "logprobs", "stream", "n"}
TOP = 20  # likeliest tokens that are asked for: the most that OpenAI tells, and vLLM unless it is started otherwise
NEVER = -9999.0  # what vLLM writes for -inf
THOUGHTS = ("reasoning", "reasoning_content")  # where servers say what a model thought, if they keep it from its reply


@dataclass(frozen=True, slots=True)
class Totals:
    """What a model has cost since it was made; answers that a cache gave are not in it."""

    answers: int = 0
    requests: int = 0  # of every kind, failed ones too
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0  # in what the price was given in
    estimated: int = 0  # chats whose tokens were counted here, because the server does not, or failed to


class Http:
    """A model on a server. Greedy, unless ``parameters`` say otherwise.

    Tokens paid are as the server says (``usage``); tokens of a chat that is still to be sent are counted by
    :class:`~rankpipe.lm.sizes.Sizes`, which needs ``tokenizer`` to be close where the server is not vLLM's.

    ``choose`` reads the likeliest 20 tokens (``parameters: {top_logprobs: 30}`` where a server tells more); a choice
    that is not among them gets -inf. vLLM is also asked for the choices themselves (``logprob_token_ids``): 0.32, for
    one, rates them all. What the reply begins with is set by ``continue_final_message``, as vLLM has it; a server that
    ignores this would rate another place, which is an error where the likeliest token there is the beginning itself,
    and else is not seen: so take ``begin`` only to those that are known to have it.

    :param model: as the server calls it.
    :param url: what comes before ``/chat/completions``.
    :param key: the name of the environment variable with the API key.
    :param context: tokens that a chat and its completion may have together; if None the server is asked (vLLM).
    :param tokenizer: a ``tokenizer.json``, or a folder with one.
    :param price: of a million tokens in, and of a million out.
    :param parameters: more fields of each request: ``{chat_template_kwargs: {enable_thinking: false}}``; null leaves
        out one that is sent otherwise (temperature).
    :param thinking: tokens that a written reply may have beside its own, to think first; how a model is told to, or not
        to, is its server's affair (``parameters``).
    :param manners: requests at once, timeouts, retries, the name of the limit.
    """

    def __init__(
        self,
        model: str,
        url: str = "http://127.0.0.1:8000/v1",
        key: str | None = None,
        context: int | None = None,
        tokenizer: Path | None = None,
        price: Sequence[float] = (0.0, 0.0),
        parameters: Mapping[str, Any] | None = None,
        thinking: int = 0,
        manners: Manners = Manners(),  # noqa: B008  frozen
    ) -> None:
        if len(price) != 2 or min(price) < 0 or (context is not None and context < 1):
            raise RecipeError([f"context={context}, price={price}: 1 or more, and two numbers that are 0 or more"])
        if theirs := OURS & set(parameters or {}):
            raise RecipeError([f"parameters: {', '.join(sorted(theirs))} cannot be set; they depend on what is asked"])
        self.model, self.price, self._context, self.thinking = model, price, context, thoughts.allowed(thinking)
        self.wire, self.limit, self.parallel = Wire(url, key, manners), manners.limit, manners.parallel
        self.parameters = {"temperature": 0, "top_logprobs": TOP, **(parameters or {})}
        self.sizes = Sizes(self.wire, model, self.parameters, tokenizer)
        self._lock, self._spent = Lock(), [0, 0, 0]  # answers, tokens in, tokens out
        self._told: Callable[[int, Any], None] | None = None

    @cached_property
    def context(self) -> int:
        """As given, or what the server says of the model (``max_model_len``); without those tokens that are for
        thinking.

        :raises ModelError: If it does not say, or has no such model, or none is left.
        """
        return thoughts.beside(self.thinking, self._context or self._served, self.model)

    @property
    def _served(self) -> int:
        served = self.wire.ask("models", None, _models, Event(), probe=True)
        if self.model not in served:
            hint = near(self.model, [*served])
            raise ModelError(f"{self.wire.url} has no model {self.model!r}{hint} ({', '.join(served)})")
        told = served[self.model]
        length = served.get(str(told.get("parent")), told).get("max_model_len")  # of an adapter it is its base's
        if not _is_count(length):
            raise ModelError(f"{self.wire.url} does not say how long the context of {self.model} is; give context=")
        return length

    @property
    def identity(self) -> str:
        """The model's name, where it is served, the parameters, and how long it may think. Two servers may mean two
        models by one name, and what a server has loaded cannot be looked at: one that now serves others by the same
        name is taken for the same.
        """
        thinking = f" thinking {self.thinking}" if self.thinking else ""
        return f"{self.model} {self.wire.url} {json.dumps(self.parameters, sort_keys=True)}{thinking}"

    @property
    def totals(self) -> Totals:
        """What was asked and paid so far."""
        with self._lock:
            answers, tokens_in, tokens_out = self._spent
        cost = (tokens_in * self.price[0] + tokens_out * self.price[1]) / 1e6
        return Totals(answers, self.wire.requests, tokens_in, tokens_out, cost, self.sizes.estimated)

    def telling(self, told: Callable[[int, Any], None]) -> Http:
        """The same model, which also tells each answer and its place as soon as it is there, from several threads."""
        other = copy.copy(self)
        other._told = told
        return other

    def count(self, chat: Chat) -> int:
        """Tokens of the chat, or no fewer; see :class:`~rankpipe.lm.sizes.Sizes`.

        :raises ModelError: If the server refuses to count them.
        """
        return self.sizes.chat(chat)

    def at_most(self, chat: Chat) -> int:
        """No fewer tokens than the chat has, and the server is not asked."""
        return self.sizes.at_most(chat)

    def complete(self, chats: Sequence[Chat], *, max_tokens: int) -> Sequence[Completion]:
        """One completion for each chat, all at once as far as ``manners`` allow.

        :raises ModelError: If a request is refused, or fails too often, or a reply is broken off before its first word.
            What is under way then is still waited for.
        """
        fields = {**self.parameters, "top_logprobs": None, self.limit: max_tokens + self.thinking}
        bodies = [self._body(chat, fields) for chat in chats]
        return self._all(bodies, self._completion, Completion("", 0, 0, late=True))

    def is_token(self, text: str, *, begin: str = "") -> bool:
        """Whether ``text`` is a single token after ``begin``; taken on trust where nobody can say.

        :raises ModelError: If the server refuses to.
        """
        return self.sizes.is_token(text, begin)

    def choose(self, chats: Sequence[Chat], choices: Sequence[str], *, begin: str = "") -> Sequence[Choice]:
        """The log-probabilities of ``choices`` as the next token, as far as the server tells them.

        :raises ModelError: If a choice is known to be no single token, or the model would think first, or the server
            tells no log-probabilities, or does not go on from ``begin``, as far as can be seen.
        """
        if self.thinking:
            raise thoughts.no_first_token(self.model)
        ids = [self.sizes.token(choice, begin) for choice in choices]
        fields = {**self.parameters, self.limit: 1, "logprobs": True}
        if ids and None not in ids:
            fields["logprob_token_ids"] = ids
        start = [{"role": "assistant", "content": begin}] if begin else []
        if begin:
            fields |= {"continue_final_message": True, "add_generation_prompt": False}
        bodies = [self._body([*chat, *start], fields) for chat in chats]
        unrated = Choice((-inf,) * len(choices), 0, late=True)
        return self._all(bodies, partial(self._choice, tuple(choices), begin), unrated)

    def likelihood(self, chats: Sequence[Chat], replies: Sequence[str]) -> NoReturn:  # noqa: ARG002
        """Chat completions do not tell how likely a given text is.

        :raises ModelError: Always.
        """
        raise ModelError(f"{self.model}: a server cannot say how likely a whole reply is; take a model of lm/hf")

    def _body(self, chat: Chat, fields: Mapping[str, Any]) -> dict[str, Any]:
        told = {k: v for k, v in fields.items() if v is not None}
        return {"model": self.model, "messages": list(chat), **told}

    def _all(self, bodies: Sequence[dict[str, Any]], read: Callable[[Any], tuple[A, int]], late: A) -> list[A]:
        """Every answer in order; ``late`` for one that is not there in time."""

        def one(place: int, stop: Event) -> A:
            answer, tokens_out = self.wire.ask("chat/completions", bodies[place], read, stop)
            self._pay(answer.tokens_in, tokens_out)
            if self._told:
                self._told(place, answer)
            return answer

        return [answer or late for answer in self.wire.together(len(bodies), one, self.model)]

    def _pay(self, tokens_in: int, tokens_out: int) -> None:
        with self._lock:
            for i, more in enumerate((1, tokens_in, tokens_out)):
                self._spent[i] += more

    def _completion(self, told: Any) -> tuple[Completion, int]:
        choice, tokens_in, tokens_out = self._said(told)
        message, broken_off = choice["message"], choice.get("finish_reason") == "length"
        text = message.get("content")
        if not isinstance(text, str | None):
            raise Fault(f"the reply's content is no text: {words(choice)}")
        if broken_off and not text:
            raise Refusal(
                f"{self.model}: broken off after {tokens_out} tokens, before the first word of its reply; a model that "
                f"thinks before it answers needs more room than thinking={self.thinking}, or is to be told not to think"
            )
        mark = thoughts.BEGIN if broken_off and self._all_thought(message) else ""
        return Completion(mark + (text or ""), tokens_in, tokens_out), tokens_out

    def _all_thought(self, message: Mapping[str, Any]) -> bool:
        """Whether a reply that was broken off is a thought, for all that can be seen: where the template begins one
        (DeepSeek-R1's), the reply has no mark of it.
        """
        told_apart = thoughts.END in message["content"] or any(message.get(name) for name in THOUGHTS)
        return self.thinking > 0 and not told_apart

    def _choice(self, choices: Sequence[str], begin: str, told: Any) -> tuple[Choice, int]:
        """Several tokens can read alike; the likeliest of them counts."""
        choice, tokens_in, tokens_out = self._said(told)
        try:
            rated = [(t["token"], float(t["logprob"])) for t in choice["logprobs"]["content"][0]["top_logprobs"]]
        except (KeyError, IndexError, TypeError, ValueError):
            raise Refusal(f"{self.model}: the server tells no log-probabilities; it said {words(told)}") from None
        likeliest = max(rated, key=lambda t: t[1], default=("", 0.0))[0]
        if likeliest and begin.startswith(likeliest) and likeliest not in choices:
            raise Refusal(
                f"{self.model}: the reply was made to begin with {begin!r}, and {likeliest!r} comes next: "
                f"{self.wire.url} ignores continue_final_message; take a server that has it, such as vLLM's, or a "
                "reranker whose reply begins with nothing, such as listwise"
            )
        best = {c: max((logprob for token, logprob in rated if token == c), default=-inf) for c in choices}
        return Choice(tuple(best[c] if best[c] > NEVER else -inf for c in choices), tokens_in), tokens_out

    def _said(self, told: Any) -> tuple[dict[str, Any], int, int]:
        """The one choice of a reply, and the tokens in and out.

        :raises Fault: If it is no reply.
        :raises Refusal: If the model, or whoever watches over it, refused.
        """
        try:
            [choice], usage = told["choices"], told["usage"]
            message, end = choice["message"], choice.get("finish_reason")
            tokens_in, tokens_out = usage["prompt_tokens"], usage["completion_tokens"]
            refusal = message.get("refusal")
        except (KeyError, TypeError, ValueError, AttributeError):
            raise Fault(f"no chat completion with its usage, but {words(told)}") from None
        if refusal or end == "content_filter":
            raise Refusal(f"{self.model}: refused ({end}): {words(refusal or message)}")
        if not (_is_count(tokens_in) and _is_count(tokens_out)) or end in ("error", "abort"):
            raise Fault(f"the reply ends with {end!r}, usage {usage}: {words(message)}")
        return choice, tokens_in, tokens_out


def _models(told: Any) -> dict[str, dict[str, Any]]:
    try:
        return {str(model["id"]): model for model in told["data"]}
    except (KeyError, TypeError):
        raise Fault(f"no list of models, but {words(told)}") from None


def _is_count(told: Any) -> TypeGuard[int]:
    """Whether it is a whole number, and not below 0; true and false are none."""
    return type(told) is int and told >= 0
