"""How many tokens a chat has that a server is to be shown."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import cache, cached_property
from pathlib import Path
from threading import Event, Lock
from typing import Any
from unicodedata import normalize

from rankpipe.catalog import need
from rankpipe.errors import ModelError
from rankpipe.lm import Chat
from rankpipe.lm.wire import Fault, Refusal, Wire
from rankpipe.lm.words import words

TEMPLATE = ("chat_template", "chat_template_kwargs", "add_special_tokens")  # parameters that decide how a chat is shown
NOT_HERE = {200, 400, 403, 404, 405, 410, 421, 422, 501}  # of servers that do not know the path, or the question
CHAT_TOKENS, MESSAGE_TOKENS = 100, 16  # allowed for what a template adds: system prompts of its own; marks of a message


class Sizes:
    """Tokens of chats and texts: the server's own count, or one that is not too low. Nobody is asked about a chat whose
    bytes would fit (:meth:`at_most`).

    1. vLLM's servers count, with their chat template (``/tokenize``); each chat is asked once. Where a server, or a
       proxy before it, fails every time, it is taken for one that does not count.
    2. Else ``tokenizer`` counts each message, and 16 more a message and 100 more a chat are allowed for the template.
    3. Without a tokenizer it is the bytes of the text, with the same allowance: byte-level tokenizers make no token
       shorter than a byte, nor do those that fall back to bytes, once the text is normalised (NFKC). Anything fewer,
       such as characters divided by four, is exceeded by some text. For English the price is four times too many.
    """

    def __init__(self, wire: Wire, model: str, parameters: Mapping[str, Any], tokenizer: Path | None) -> None:
        self.wire, self.model, self.tokenizer = wire, model, tokenizer
        self.template = {k: parameters[k] for k in TEMPLATE if k in parameters}
        self.estimated = 0  # chats that were not counted by the server
        self._asks, self._counted = True, False  # until the server says that it does not count; whether it ever has
        self._first = Lock()  # who asks while it has not: one at a time, for it may never answer
        self._lock, self._chats = Lock(), dict[str, int]()
        self._ids = cache(self._looked_up)

    def chat(self, chat: Chat) -> int:
        """Tokens of a chat, ready for the reply.

        :raises ModelError: If the server refuses to count, as it would refuse to answer.
        """
        key = hashlib.sha256(json.dumps(list(chat)).encode()).hexdigest()
        if key not in self._chats:
            ids = self._asked({"messages": list(chat), **self.template})
            self._chats[key] = self._most(chat, self._length) if ids is None else len(ids)
            with self._lock:
                self.estimated += ids is None
        return self._chats[key]

    def at_most(self, chat: Chat) -> int:
        """By its bytes, whoever counts: they have room for a longer template, too, where ``tokenizer`` would not."""
        return self._most(chat, _bytes)

    def is_token(self, text: str, before: str) -> bool:
        """Whether ``text`` is one token after ``before``; taken on trust where nobody can say."""
        start, both = self._ids(before), self._ids(before + text)
        return start is None or both is None or (both[:-1] == start and len(both) == len(start) + 1)

    def token(self, text: str, before: str) -> int | None:
        """What the server calls the one token that ``text`` is after ``before``; None if it does not say.

        :raises ModelError: If the server, or else ``tokenizer``, makes more or fewer of it.
        """
        if not self.is_token(text, before):
            raise ModelError(f"{self.model}: {text!r} after {before!r} is no single token; take other labels")
        ids = self._ids(before + text)
        return ids[-1] if ids and self._asks else None

    def _most(self, chat: Chat, length: Callable[[str], int]) -> int:
        return CHAT_TOKENS + sum(MESSAGE_TOKENS + sum(map(length, message.values())) for message in chat)

    def _length(self, text: str) -> int:
        ids = self._own(text)
        return _bytes(text) if ids is None else len(ids)

    def _looked_up(self, text: str) -> list[int] | None:
        asked = self._asked({"prompt": text, "add_special_tokens": False})
        return self._own(text) if asked is None else asked

    def _own(self, text: str) -> list[int] | None:
        ids: list[int] | None = self._own_tokenizer and self._own_tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    @cached_property
    def _own_tokenizer(self) -> Any:
        if self.tokenizer is None:
            return None
        file = self.tokenizer / "tokenizer.json" if self.tokenizer.is_dir() else self.tokenizer
        if not file.exists():
            raise ModelError(f"{file}: no such tokenizer; name a tokenizer.json or a folder with one")
        tokenizer = need("tokenizers", name="a tokenizer", extra="all").Tokenizer.from_file(str(file))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def _asked(self, body: Mapping[str, Any]) -> list[int] | None:
        """The server's tokens; None if it is not one that counts, which it is asked once only.

        :raises Refusal: If it may be one, and says no.
        """
        with nullcontext() if self._counted else self._first:
            if not self._asks:
                return None
            try:
                ids = self.wire.ask("/tokenize", {"model": self.model, **body}, _tokens, Event(), probe=True)
            except Refusal as refusal:
                if refusal.status not in NOT_HERE:
                    raise
                ids = None
            except ModelError:  # whether it fails to answer as well, will be seen
                ids = None
            self._asks = self._counted = ids is not None
            return ids


def _bytes(text: str) -> int:
    return max(len(t.encode("utf-8", "surrogatepass")) for t in (text, normalize("NFKC", text)))


def _tokens(told: Any) -> list[int] | None:
    """None if it is something else's answer: llama.cpp has the path too, and finds no tokens in what vLLM is asked."""
    if not isinstance(told, dict):
        raise Fault(f"no tokens, but {words(told)}")
    if "max_model_len" not in told:
        return None
    if not isinstance(told.get("tokens"), list):
        raise Fault(f"no tokens, but {words(told)}")
    return list(told["tokens"])
