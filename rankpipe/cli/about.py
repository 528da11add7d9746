"""What ``rankpipe ls NAME`` tells: a component and its arguments in its own words, a model, a prompt."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from rankpipe import recipe
from rankpipe.catalog import CATALOG, EXTRAS, find, installed, near, plugins
from rankpipe.cli import fit, show
from rankpipe.errors import DataError

PARAMETER = re.compile(r"^:param (\w+): (.+(?:\n +.+)*)", re.MULTILINE)
FIELDS = re.compile(r"^:(?:param|return|raises)\b.*", re.MULTILINE | re.DOTALL)  # from the first to the end
INHERITED = re.compile(r"See :class:`~?(?:\w+\.)*(\w+)` for [^.]*\.")
ASIDE = re.compile(r"\s*\((?:see\s+)?:\w+:`[^`]*`\)")  # points into the source
ROLE = re.compile(r":\w+:`~?(?:\w+\.)*(\w+)`")


def tell(name: str) -> None:
    """All that has this name: a component, a prompt and an extra may share one.

    :raises DataError: If nothing has.
    """
    from rankpipe import weights
    from rankpipe.rerank.features import described
    from rankpipe.rerank.prompts import ours
    from rankpipe.retrieve.shelf import ALSO

    features = described()
    told: dict[str, Any] = {}
    if name in CATALOG or name in plugins() or ":" in name:
        told["component"] = component(name)
    if also := ALSO.get(name):
        told["kind of index"] = {"name": also, **component(also)}
    if model := weights.find(name):
        told["model"] = asdict(model)
    if name in ours():
        told["prompt"] = ours()[name].read_text("utf-8")
    if name in features:
        told["feature"] = features[name]
    if name in EXTRAS:
        told["extra"] = extra(name)
    if not told:
        known = [*CATALOG, *ALSO, *plugins(), *(m.alias for m in weights.known()), *ours(), *features, *EXTRAS]
        raise DataError(f"nothing here is called {name!r}{near(name, known) or '.'} See: rankpipe ls")
    show.emit(told, lambda: _human(name, told))


def component(name: str) -> dict[str, Any]:
    """A component's documentation and arguments, and those of what makes its folder, if it has one."""
    from rankpipe.retrieve.shelf import GIVEN

    call = find(name)
    told = {"documentation": _words(_described(call)), "arguments": arguments(call)}
    for verb, method, given in (("index", "build", GIVEN), ("fit", "fit", fit.GIVEN)):
        if inspect.ismethod(made := getattr(call, method, None)):  # of the class: what an instance does makes no folder
            told[verb] = arguments(made, given)
    return told


def extra(name: str) -> dict[str, Any]:
    """What an extra brings, whether it is here, and what needs it."""
    return {
        "modules": list(EXTRAS[name]),
        "installed": all(map(installed, EXTRAS[name])),
        "install": f"pip install 'rankpipe[{name}]'",
        "needed by": [part for part, entry in CATALOG.items() if entry.extra == name],
    }


def arguments(call: Callable[..., Any], given: Sequence[str] = ()) -> list[dict[str, str | None]]:
    """Each argument with its default (as Python writes it; None if it must be said), and what is said of it. Without
    those that are functions, which can be given in Python only.
    """
    said: dict[str, str] = {}
    for one in (*recipe.shared(call).values(), *reversed(inspect.getmro(call) if inspect.isclass(call) else [call])):
        said |= {name: _words(words) for name, words in PARAMETER.findall(_documentation(one))}
    return [
        {"name": p.name, "default": None if p.default is p.empty else repr(p.default), "about": said.get(p.name, "")}
        for p in recipe.parameters(call).values()
        if p.name not in given and not inspect.isroutine(p.default)
    ]


def _human(name: str, told: dict[str, Any]) -> None:
    def said(text: str) -> None:
        show.out.print(text, markup=False, highlight=False, soft_wrap=True)

    def page(name: str, part: dict[str, Any]) -> None:
        said(f"{name}: {CATALOG[name].about}\n" if name in CATALOG else name)
        said(part["documentation"] + "\n")
        _table("Arguments (KEY: VALUE in a recipe, --set KEY=VALUE)", part["arguments"])
        for verb, made in (("index build", "index"), ("fit", "fit")):
            _table(f"Of rankpipe {verb} --set KEY=VALUE", part.get(made, []))

    if part := told.get("component"):
        page(name, part)
    if part := told.get("kind of index"):
        said(f"rankpipe index build --use {name} makes an index of the kind {part['name']}\n")
        page(part["name"], part)
    if model := told.get("model"):
        facts = {k.replace("_", " "): v for k, v in model.items() if v and not isinstance(v, dict)}
        show.facts(f"The model {name}", facts)
    if "prompt" in told:
        said(f"The prompt {name}:\n\n{told['prompt']}")
    if "feature" in told:
        said(f"The feature {name} of ltr (features: [{name}, ...]): {told['feature']}")
    if part := told.get("extra"):
        listed = {k: ", ".join(v) if isinstance(v, list) else v for k, v in part.items()}
        show.facts(f"The extra {name}", listed | {"installed": "yes" if part["installed"] else "no"})


def _table(title: str, rows: Sequence[dict[str, str | None]]) -> None:
    if rows:
        columns = ("argument", "default", "what")
        show.table(title, columns, [tuple(row.values()) for row in rows], text=columns)


def _described(call: Any) -> str:
    """What it is; where that says to see a class that it is made of, what that one is."""
    made_of = {one.__name__: one for one in inspect.getmro(call)[1:]} if inspect.isclass(call) else {}
    return INHERITED.sub(
        lambda m: _described(made_of[m[1]]) if m[1] in made_of else m[0], FIELDS.sub("", _documentation(call)).strip()
    )


def _documentation(call: Any) -> str:
    return inspect.cleandoc(call.__doc__ or "")


def _words(text: str) -> str:
    """Without line ends inside paragraphs, and without Sphinx's marks."""
    plain = ROLE.sub(r"\1", ASIDE.sub("", text)).replace("``", "`").strip()
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", plain))
