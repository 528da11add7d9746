"""What Lucene refuses, in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rankpipe.catalog import need
from rankpipe.errors import ArtefactError, DiskError
from rankpipe.store import cure

GONE = {
    "java.nio.file.NoSuchFileException",
    "java.io.FileNotFoundException",
    "org.apache.lucene.index.IndexNotFoundException",
}
UNREADABLE = {f"org.apache.lucene.index.{name}Exception" for name in ("CorruptIndex", "IndexFormatTooOld",
              "IndexFormatTooNew")} | {"java.io.EOFException"}  # fmt: skip
REFUSED = {"java.io.IOException", "java.nio.file.FileSystemException", "java.nio.file.AccessDeniedException"}


@contextmanager
def refusals(folder: Path) -> Iterator[None]:
    """Java's errors in ours.

    :param folder: of Lucene's files.
    :raises FileNotFoundError: If one has gone.
    :raises ArtefactError: If one cannot be read.
    :raises DiskError: If one cannot be written.
    """
    try:
        yield
    except need("jnius", name="lucene", extra="java").JavaException as error:
        said = f"{folder}: Lucene says: {error.innermessage or error}"
        if error.classname in GONE:
            raise FileNotFoundError(said) from error
        if error.classname in UNREADABLE:
            raise ArtefactError(f"{said}; {cure(folder)}") from error
        if error.classname in REFUSED:
            raise DiskError(f"{said}; nothing was changed") from error
        raise
