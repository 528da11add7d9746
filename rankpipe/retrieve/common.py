"""Arguments that the kinds of index of ours share."""

from __future__ import annotations

from typing import Any, TypedDict

from rankpipe.retrieve.passages import Passages

Said = Passages | dict[str, Any] | None  # of how documents are cut, in Python or in a recipe


class Common(TypedDict, total=False):
    """What every kind's ``build`` takes beside its own arguments.

    :param passages: cut documents into passages and find them by these; whole by default. Its arguments are those of
        :class:`~rankpipe.retrieve.passages.Passages`: ``max``, ``overlap``, ``sentences``, ``tokens``, ``score``.
    :param memory: what the making of the index, and of its changes, may hold beside the model and 16 bytes a document:
        "1GB"; as much as it takes by default. In less, an index has more segments.
    """

    passages: Said
    memory: str | int | None
