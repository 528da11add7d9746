"""Files of JSON lines that grow while work is done, and that a kill may leave with half a line."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from rankpipe.disk import disk_errors
from rankpipe.disk import write as written
from rankpipe.errors import ArtefactError


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the rows down; they are on the disk when this returns.

    :raises DiskError: If they cannot be.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as f:
            f.writelines(json.dumps(row) + "\n" for row in rows)
            f.flush()
            os.fsync(f.fileno())


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """The file anew: it has all the rows or is what it was.

    :raises DiskError: If it cannot be written.
    """
    with written(path) as f:
        f.writelines(json.dumps(row) + "\n" for row in rows)


def read(path: Path, fields: Collection[str], cure: str, *others: Collection[str]) -> list[dict[str, Any]]:
    """All rows; none if there is no file. A last line that was never finished is not one.

    :param fields: what each row has.
    :param cure: what to do about a damaged line.
    :param others: what a row may have instead.
    :raises ArtefactError: If a line in the middle is damaged; says which.
    """
    known, rows = [set(names) for names in (fields, *others)], []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1] if path.exists() else (), 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or set(row) not in known:
            raise ArtefactError(f"{path}:{number}: damaged line; {cure}")
        rows.append(row)
    return rows


def mend(path: Path) -> None:
    """Cut off a last line that was never finished, so that others can be appended."""
    if path.exists():
        content = path.read_bytes()
        with open(path, "r+b") as f:
            f.truncate(content.rfind(b"\n") + 1)
