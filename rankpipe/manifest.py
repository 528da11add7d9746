"""What is known of an artefact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Data:
    """What an artefact was made from."""

    name: str
    checksum: str


@dataclass(frozen=True)
class Manifest:
    """What an artefact is, and the checksum of each of its files."""

    folder: Path
    kind: str
    format: int
    build: str  # the name of its folder under made/
    recipe: dict[str, Any]
    data: Data
    facts: dict[str, Any]
    files: dict[str, tuple[int, str]]  # name: (size_bytes, sha256)
    versions: dict[str, str]
    commit: str
    created: str
    seconds: float = 0.0
    recipe_hash: str = ""

    @property
    def path(self) -> Path:
        """Where the files lie."""
        return self.folder / "made" / self.build

    @property
    def paths(self) -> dict[Path, tuple[int, str]]:
        """Where each file lies, with its size and checksum."""
        return {self.path / name: known for name, known in self.files.items()}

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(size for size, _ in self.files.values())

    def unlike(self, recipe: dict[str, Any]) -> list[str]:
        """The arguments in which it was made by another recipe."""
        return sorted(k for k in {*recipe, *self.recipe} if recipe.get(k) != self.recipe.get(k))
