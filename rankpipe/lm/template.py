"""Chat templates: what a model is shown of a chat, and what its reply begins with."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from rankpipe.catalog import need
from rankpipe.errors import ModelError
from rankpipe.lm import Chat, thoughts

MARK = "what is said"  # a message, to see what a template makes of one


class ChatTemplate:
    """The template of a tokenizer, or where it has none ``other``.

    One without a place for a system message (Gemma's refuses it, others leave it out) is given it before the first
    user message, a blank line between them.

    :param other: Jinja; "" if there is none.
    :param model: its name, for messages.
    :param thinks: whether a model that can think before it answers is to do so, which is told to templates that ask
        (``enable_thinking``: Qwen3). Unless told, such models think.
    """

    def __init__(self, tokenizer: Any, other: str, model: str, thinks: bool) -> None:
        self.tokenizer, self.other, self.model, self.thinks = tokenizer, other, model, thinks

    def text(self, chat: Chat) -> str:
        """The whole chat, ready for the reply.

        :raises ModelError: If there is no template, or it refuses the chat.
        """
        if chat[0]["role"] == "system" and not self._hears_system:
            chat = joined(chat)
        return self._rendered(chat)

    @cached_property
    def ending(self) -> str:
        """What comes after the last message, where a reply begins."""
        return self._rendered([{"role": "user", "content": MARK}]).rpartition(MARK)[2]

    @cached_property
    def thought(self) -> str:
        """The mark of a thought, if the template begins one (DeepSeek-R1's), else ""."""
        return thoughts.BEGIN if self.ending.rstrip().endswith(thoughts.BEGIN) else ""

    def _rendered(self, chat: Chat) -> str:
        jinja2 = need("jinja2", name="a chat template", extra="lm")
        told = {"enable_thinking": self.thinks} if "enable_thinking" in self._jinja else {}
        try:
            text: str = self.tokenizer.apply_chat_template(
                list(chat), chat_template=self._jinja, tokenize=False, add_generation_prompt=True, **told
            )
        except jinja2.TemplateError as error:
            roles = ", ".join(m["role"] for m in chat)
            raise ModelError(f"{self.model}: its chat template refuses the messages ({roles}): {error}") from error
        return text

    @cached_property
    def _jinja(self) -> str:
        if self.tokenizer.chat_template is not None:
            return str(self.tokenizer.get_chat_template())  # some have several, of which one is for chats
        if not self.other:
            raise ModelError(
                f"{self.model}: its tokenizer has no chat template, so it is probably no model for instructions; take "
                f"one that is, or put a chat_template.jinja into {self.tokenizer.name_or_path}"
            )
        return self.other

    @cached_property
    def _hears_system(self) -> bool:
        try:
            return MARK in self._rendered([{"role": "system", "content": MARK}, {"role": "user", "content": "?"}])
        except ModelError:
            return False


def joined(chat: Chat) -> Chat:
    """The system message as the beginning of the user's that follows it; a chat without such as it is."""
    system, *others = chat
    if not others or others[0]["role"] != "user":
        return chat
    first = {"role": "user", "content": f"{system['content']}\n\n{others[0]['content']}"}
    return [first, *others[1:]]
