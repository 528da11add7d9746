"""From source files to documents: parse, walk the definitions, keep the docstrings that say something."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rankpipe.data import Doc
from rankpipe.datasets.pydocs.files import SourceFile, source_files
from rankpipe.errors import DataError

MIN_WORDS = 5  # words of two letters or more; below that a docstring repeats the name ("Return the value")
MAX_TITLE = 80  # characters; a longer signature moves from the title into the text

_WORD = re.compile(r"[^\W\d_]{2,}")
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Definition = ast.Module | ast.ClassDef | _Function


@dataclass(frozen=True, slots=True)
class Extraction:
    """The documents of one source tree, sorted by id, and what was left out on the way."""

    docs: tuple[Doc, ...]
    files: int
    short: int  # docstrings of fewer than MIN_WORDS words
    repeated: int  # docstrings whose id was taken: a property's setter, the other branch of an `if`, a private twin


def extract(root: Path) -> Extraction:
    """Read every public docstring below ``root``, importing nothing.

    Where an id comes twice, the first wins: public files before private ones, then the order in the file.

    :raises DataError: If a file cannot be parsed; names file and line.
    """
    sources = source_files(root)
    docs: dict[str, Doc] = {}
    short = repeated = 0
    for source in sources:
        for doc, words in _documents(source):
            if words < MIN_WORDS:
                short += 1
            elif doc.id in docs:
                repeated += 1
            else:
                docs[doc.id] = doc
    return Extraction(tuple(docs[i] for i in sorted(docs)), len(sources), short, repeated)


def _documents(source: SourceFile) -> Iterator[tuple[Doc, int]]:
    """Each documented definition of a file, with the number of words its documentation has."""
    tree = _parse(source.path)
    for name, node in ((source.module, tree), *_definitions(tree.body, source.module)):
        documented = _docstrings(node)
        if documented:
            title, signature = _heading(name, node)
            text = "\n\n".join([signature, *documented] if signature else documented)
            yield Doc(name, text, title), sum(len(_WORD.findall(d)) for d in documented)


def _parse(path: Path) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # the library's own "\d": not ours to report
            warnings.simplefilter("ignore", DeprecationWarning)  # the same warning until Python 3.11
            return ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as e:  # ValueError: a null byte, until Python 3.11.3
        line = (e.lineno if isinstance(e, SyntaxError) else None) or 1
        what = e.msg if isinstance(e, SyntaxError) else str(e)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise DataError(
            f"{path}:{line}: not Python {version} source ({what}); reinstall this Python, "
            "or pass the standard library of the Python that is running as root"
        ) from e


def _definitions(body: Iterable[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.ClassDef | _Function]]:
    """Public classes and functions with their dotted names, also those under `if`, `try`, `with`."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if not node.name.startswith("_"):
                name = f"{prefix}.{node.name}"
                yield name, node
                if isinstance(node, ast.ClassDef):
                    yield from _definitions(node.body, name)
        elif isinstance(node, ast.If | ast.With):
            yield from _definitions([*node.body, *getattr(node, "orelse", [])], prefix)
        elif isinstance(node, ast.Try):
            handled = [s for h in node.handlers for s in h.body]
            yield from _definitions([*node.body, *handled, *node.orelse, *node.finalbody], prefix)


def _docstrings(node: _Definition) -> list[str]:
    """A definition's docstring; a class's is followed by that of its ``__init__``."""
    nodes = [node, _init(node)] if isinstance(node, ast.ClassDef) else [node]
    raw = (ast.get_docstring(n, clean=False) for n in nodes if n is not None)
    return [cleaned for doc in raw if doc and (cleaned := inspect.cleandoc(doc).strip())]


def _init(node: ast.ClassDef) -> _Function | None:
    """The class's own constructor."""
    return next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)


def _heading(name: str, node: _Definition) -> tuple[str, str]:
    """The title, and the signature where the title does not hold it: a class's call, or one too long to be read."""
    short = name.rpartition(".")[2]
    if isinstance(node, ast.Module):
        return f"module {name}", ""
    if isinstance(node, ast.ClassDef):
        init = _init(node)
        return f"class {name}", f"{short}({_arguments(init).removeprefix('self').lstrip(', ')})" if init else ""
    if any(ast.unparse(d).endswith("property") for d in node.decorator_list):
        return f"property {name}", ""
    arguments = f"({_arguments(node)})"
    whole = name + arguments
    return (whole, "") if len(whole) <= MAX_TITLE else (f"{name}(...)", short + arguments)


def _arguments(node: _Function) -> str:
    """The argument list as it is written, without annotations."""
    args = node.args
    for a in [*args.posonlyargs, *args.args, *args.kwonlyargs, *(x for x in (args.vararg, args.kwarg) if x)]:
        a.annotation = None
    return ast.unparse(args)
