"""Arguments that the kinds of index of ours share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypedDict

from rankpipe import store
from rankpipe.datasets import Dataset
from rankpipe.errors import DataError
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


def refuse_place(data: Dataset, folder: Path | str, kind: str) -> Path:
    """The folder that an index is to be built in, from Python, where no command has looked at it.

    :raises DataError: If ``data`` is no collection.
    :raises ArtefactError: If something else is there; what lies beside the recipe of an index may stay.
    """
    if not isinstance(data, Dataset):
        cure = "rankpipe.open_dataset(path) opens a file or folder, Dataset.of(docs) takes a list of Doc"
        raise DataError(f"data: a {type(data).__name__}, expected a Dataset; {cure}")
    folder = Path(folder)
    written = folder / "recipe.yaml"
    if not (written.is_file() and re.search(rb"^index:", written.read_bytes(), re.MULTILINE)):
        store.claim(folder, kind)
    return folder
