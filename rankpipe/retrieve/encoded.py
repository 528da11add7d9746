"""What living indexes share whose documents a model encodes: the model, and encoding that a stop does not lose."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar, Unpack

from rankpipe import weights
from rankpipe.catalog import find
from rankpipe.data import Doc
from rankpipe.datasets import Dataset
from rankpipe.disk import write
from rankpipe.errors import ArtefactError, RankpipeError, RecipeError
from rankpipe.manifest import Manifest
from rankpipe.progress import working
from rankpipe.provenance import digest
from rankpipe.retrieve.common import Common
from rankpipe.retrieve.living import Living
from rankpipe.retrieve.parts import Part
from rankpipe.retrieve.segment import Segment

E = TypeVar("E")
CHOSEN = "chosen.json"  # in a segment that is being made: what was chosen where its recipe leaves a choice


@dataclass(frozen=True)
class Model(Generic[E]):
    """A loaded encoder."""

    encoder: E
    identity: str  # which weights exactly, and what else says which numbers come out
    facts: dict[str, Any] = field(default_factory=dict)  # what an index keeps of how it computes


class Identified(Protocol):
    """A model, or several."""

    @property
    def identity(self) -> str:
        """Which weights exactly."""
        ...


M = TypeVar("M", bound=Identified)


class Loaded(Generic[M]):
    """The model of an index that is open, loaded when it is first asked for: one for this and all that are filtered
    from it.

    :param manifest: of the build that is open.
    """

    def __init__(self, manifest: Manifest, load: Callable[[Manifest], M]) -> None:
        self._manifest, self._load = manifest, load
        self._made: M | None = None

    @classmethod
    def since(cls, index: Living, name: str, load: Callable[[Manifest], M]) -> Loaded[M]:
        """That of the build which is open now; the one that was there before, under this name, if it is the same."""
        before: Loaded[M] | None = vars(index).get(name)
        return before if before and before._serves(index.manifest) else cls(index.manifest, load)

    def _serves(self, manifest: Manifest) -> bool:
        known = self._made.identity if self._made else self._manifest.facts.get("identity")
        told = manifest.facts.get("identity", known if self._made else None)  # none of an index without documents
        return self._manifest.recipe == manifest.recipe and told == known

    def __call__(self) -> M:
        """The model.

        :raises ArtefactError: If the model's files are no longer those the index was made with.
        """
        if self._made is None:
            made = self._load(self._manifest)
            _refuse_other(self._manifest, made.identity)
            self._made = made
        return self._made


class Encoded(Living, Generic[E]):
    """An index by one model. Its recipe has ``model`` and ``max_length``; its facts say which weights made it.

    The model is loaded at the first search or addition.
    """

    counts = (*Living.counts, "truncated_texts")
    reuses = True
    asks: ClassVar[type[Any]]  # what an encoder must have, as a protocol; and an ``identity``
    ways: ClassVar[tuple[str, ...]] = ("model", "max_length")  # what of a recipe says how texts are encoded and kept

    @classmethod
    @abstractmethod
    def opened(cls, model: str, max_length: int | None) -> E:
        """The encoder of this name."""

    @classmethod
    @abstractmethod
    def encode(cls, docs: Iterable[Doc], draft: Part, recipe: dict[str, Any], model: Model[E]) -> None:
        """Make a segment; what an interrupted build has encoded is there already."""

    @classmethod
    def make(cls, data: Dataset, folder: Path | str, recipe: dict[str, Any], **common: Unpack[Common]) -> Self:
        """Build an index.

        :raises RecipeError: If the model is no name.
        """
        if not isinstance(model := recipe["model"], str):
            cure = "a name, a folder, or 'module:Class', by which the index finds it whenever it is searched"
            raise RecipeError([f"model: a {type(model).__name__}; expected {cure}"])
        return super().make(data, folder, recipe, **common)

    @classmethod
    def fill(cls, docs: Iterable[Doc], draft: Part, recipe: dict[str, Any]) -> None:
        """Make a segment by the model of the recipe. What is left to the machine is chosen as for the segments before
        it, for what is begun of this one, or for the index that it replaces, whose encodings serve again then.
        """
        if not cls.undecided(recipe):
            cls.encode(docs, draft, recipe, cls.load(recipe))
            return
        chosen = draft.folder / CHOSEN
        model = cls._as_before(recipe, draft.before() or _told(chosen) or draft.replaced(recipe, cls.ways))
        with write(chosen) as f:
            json.dump(model.facts, f)
        cls.encode(docs, draft, recipe, model)
        chosen.unlink(missing_ok=True)

    @classmethod
    def _as_before(cls, recipe: dict[str, Any], facts: dict[str, Any]) -> Model[E]:
        settled = cls.settled(recipe, facts)
        try:
            return cls.load(settled)
        except RankpipeError:
            if settled == recipe:
                raise
            return cls.load(recipe)  # this machine cannot do it so

    @classmethod
    def ready(cls, recipe: dict[str, Any]) -> Callable[[Iterable[Doc], Part], None]:
        """What makes segments, its model loaded."""
        return partial(cls.encode, recipe=recipe, model=cls.load(recipe))

    def more(self, docs: Iterable[Doc], draft: Part) -> None:
        """Make a segment, by the model that has made the others."""
        self.encode(docs, draft, self.manifest.recipe, self.model)

    @classmethod
    def undecided(cls, recipe: dict[str, Any]) -> bool:  # noqa: ARG003
        """Whether a recipe leaves a choice to the machine, which has to be the same for all segments."""
        return False

    @classmethod
    def settled(cls, recipe: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG003
        """The recipe, with what was chosen where it leaves a choice, by the facts of what was built."""
        return recipe

    @classmethod
    def decided(cls, recipe: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
        """The recipe, with what is chosen here where it leaves a choice: what was before, if this machine can do it."""
        return cls.settled(recipe, cls._as_before(recipe, facts).facts)

    @classmethod
    def load(cls, recipe: dict[str, Any]) -> Model[E]:
        """The model of a recipe; anybody's as ``package.module:Class``, which says its ``identity``."""
        name, length = recipe["model"], recipe["max_length"]
        if ":" in name:
            named = _anybodys(name, length, cls.asks)
            return Model(named, named.identity)
        with working(f"loading {name}"):
            return Model(cls.opened(name, length), weights.identity(weights.resolve(name)))

    @classmethod
    def way(cls, recipe: dict[str, Any], made_by: str) -> str:
        """How texts are encoded and kept, in a few letters.

        :param made_by: the model's identity.
        """
        return digest({**{name: recipe.get(name) for name in cls.ways}, "identity": made_by})

    @property
    def model(self) -> Model[E]:
        """The model that made the index.

        :raises ArtefactError: If the model's files are no longer those the index was made with.
        """
        return self._model()

    def _open(self) -> None:
        super()._open()
        self._model = Loaded.since(self, "_model", self._loaded)

    @classmethod
    def _loaded(cls, manifest: Manifest) -> Model[E]:
        return cls.load(cls.settled(manifest.recipe, manifest.facts))


def _anybodys(name: str, max_length: int | None, protocol: type[Any]) -> Any:
    """An encoder by the name of its class.

    :raises RecipeError: If it cannot be made so, or lacks what is asked of it; says what.
    """
    named = find(name)
    try:
        signature(named).bind(max_length=max_length)
    except TypeError as error:
        raise RecipeError(
            [f"model: {name}: is made with max_length={max_length}, which it does not take: {error}"]
        ) from None
    made, asked = named(max_length=max_length), sorted({"identity"} | {n for n in vars(protocol) if n[0] != "_"})
    if lost := [part for part in asked if not hasattr(made, part)]:
        kind, parts = f"{protocol.__module__}.{protocol.__name__}", ", ".join(asked)
        raise RecipeError(
            [f"model: {name}: has no {' and no '.join(lost)}; an encoder of this kind has {parts}: {kind}"]
        )
    if not (isinstance(made.identity, str) and made.identity):
        raise RecipeError(
            [f"model: {name}: its identity is {made.identity!r}; expected a text that says which numbers come out"]
        )
    return made


def _told(chosen: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(chosen.read_text("utf-8")))
    except (OSError, ValueError):
        return {}


def _refuse_other(manifest: Manifest, identity: str) -> None:
    """Refuse a model that is not the one that made an index."""
    known = manifest.facts.get("identity", identity)  # none of an index without documents
    if identity != known:
        names = " and ".join(repr(name) for key in ("model", "sparse") if (name := manifest.recipe.get(key)))
        raise ArtefactError(
            f"{manifest.folder}: made with {known}, but {names} is now {identity}; build it again, or bring that model "
            "back"
        )


def identity(segments: Iterable[Segment]) -> str:
    """The model of some segments of an index: it is the same for all."""
    return str(next(iter(segments)).facts["identity"])
