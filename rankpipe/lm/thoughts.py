"""Models that think before they answer: the marks of a thought, and the room for it."""

from __future__ import annotations

from rankpipe.errors import ModelError, RecipeError

BEGIN, END = "<think>", "</think>"


def allowed(thinking: int) -> int:
    """A number of tokens for thoughts.

    :raises RecipeError: If it is below 0.
    """
    if thinking < 0:
        raise RecipeError([f"thinking={thinking}: a number of tokens, 0 or more"])
    return thinking


def beside(thinking: int, context: int, model: str) -> int:
    """What thoughts leave of a model's context.

    :raises ModelError: If that is nothing.
    """
    if context <= thinking:
        raise ModelError(f"{model}: its context is {context} tokens, of which thinking={thinking} leaves none")
    return context - thinking


def no_first_token(model: str) -> ModelError:
    """Why a model that thinks is not asked what comes next."""
    return ModelError(
        f"{model}: thinks before it answers, so that what comes next is no answer; take listwise, or a model that does "
        "not think (thinking=0)"
    )
