"""Which source files of the standard library are read, and the public module each one documents."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rankpipe.errors import DataError

SKIPPED = frozenset({  # folders and modules left out wherever they stand in the tree
    # other people's packages, test suites (some of their files are broken on purpose), generated tables
    "site-packages", "dist-packages", "test", "tests", "encodings", "pydoc_data",
    # programs that are shipped with Python rather than called from it, and jokes
    "idlelib", "lib2to3", "turtledemo", "ensurepip", "antigravity", "this", "__pycache__",
    # absent from many installations (Linux distributions pack it apart)
    "tkinter",
    # removed in 3.12 or 3.13: leaving them out keeps the corpora of Python versions close to each other
    "aifc", "asynchat", "asyncore", "cgi", "cgitb", "chunk", "crypt", "distutils", "imghdr", "imp", "mailcap",
    "nntplib", "pipes", "smtpd", "sndhdr", "sunau", "telnetlib", "uu", "xdrlib",
})  # fmt: skip

SOURCE_OF = {  # private module -> the public module whose pure-Python source it is, in any version from 3.11 to 3.13
    "__future__": "__future__",
    "_collections_abc": "collections.abc",
    "_pydatetime": "datetime",
    "_pydecimal": "decimal",
    "_pyio": "io",
    "concurrent.futures._base": "concurrent.futures",
    "ctypes._endian": "ctypes",
    "email._policybase": "email.policy",
    "importlib._abc": "importlib.abc",
    "importlib.resources._common": "importlib.resources",
    "importlib.resources._functional": "importlib.resources",
    "importlib.resources._legacy": "importlib.resources",
    "pathlib._local": "pathlib",
    "tomllib._parser": "tomllib",
    "zipfile._path": "zipfile",
    "zoneinfo._zoneinfo": "zoneinfo",
}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to read. ``module`` is the public name its definitions are filed under."""

    path: Path
    module: str
    private: bool  # the file's own name is private: it gives way where a public file has the same id


def source_files(root: Path) -> list[SourceFile]:
    """Every file to read below ``root``: public files first, each group by module name, whatever the disk's order.

    :raises DataError: If ``root`` is no folder of Python source files.
    """
    found = [source for path in _walk(root) if (source := _identify(path.relative_to(root), path))]
    if not found:
        raise DataError(f"{root}: no Python source files here; pass the folder that holds 'threading.py' as root")
    return sorted(found, key=lambda s: (s.private, s.module, s.path.relative_to(root).as_posix()))


def _walk(root: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(root):
        names[:] = [n for n in names if n.isidentifier() and n not in SKIPPED]
        yield from (Path(folder, f) for f in files if f.endswith(".py"))


def _identify(relative: Path, path: Path) -> SourceFile | None:
    """The module a path is; none for what is skipped, private, or cannot be imported by name."""
    parts = list(relative.with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    name = ".".join(parts)
    if name in SOURCE_OF:
        return SourceFile(path, SOURCE_OF[name], private=True)
    if not parts or any(not p.isidentifier() or p.startswith("_") or p in SKIPPED for p in parts):
        return None
    return SourceFile(path, name, private=False)
