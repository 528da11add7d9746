"""Tiny models with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tuned import LORA, TRAINING

from rankpipe.datasets import open_dataset


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory, embedded: Callable[[str], Path], one_thread: None) -> Path:
    """An encoder of two layers that knows the words of MiniLM, and pools by the mean."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    sentence_transformers = pytest.importorskip("sentence_transformers")
    plain, folder = tmp_path_factory.mktemp("plain-bert"), tmp_path_factory.mktemp("tiny-bert")
    tokenizer = transformers.AutoTokenizer.from_pretrained(embedded("minilm"))
    tokenizer.save_pretrained(plain)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=128, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(4)
    transformers.BertModel(config).save_pretrained(plain)
    sentence_transformers.SentenceTransformer(str(plain), device="cpu").save(str(folder))
    return folder


@pytest.fixture(scope="session")
def first_stage(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over the tiny collection: eight documents for each query, the relevant ones not at the top."""
    data = open_dataset(tiny_path)
    docs = [d.id for d in data.docs()]
    rows = []
    for i, query in enumerate(data.queries):
        good = [d for d, grade in data.qrels.get(query.id, {}).items() if grade > 0]
        bad = [d for d in docs[i:] + docs[:i] if d not in good]
        hits = [*bad[:4], *good, *bad[4:]][:8]
        rows += [f"{query.id} Q0 {d} {rank} {1 / rank} x\n" for rank, d in enumerate(hits, 1)]
    file = tmp_path_factory.mktemp("first-stage") / "run.trec"
    file.write_text("".join(rows))
    return file


@pytest.fixture
def written(tiny_chat: Path, tiny_path: Path, first_stage: Path, tmp_path: Path) -> Any:
    """Writes a recipe of a tiny model, with some keys other than usual; its folder."""

    def write(name: str = "it", **more: Any) -> Path:
        lists = {"use": "lists", "data": str(tiny_path), "run": str(first_stage), "length": [3, 5], "copies": 2}
        tree = {
            "model": str(tiny_chat), "head": {"use": "first-head", "context": 1024}, "examples": lists,
            "loss": {"use": "first-loss"}, "adapter": LORA, "optimizer": {"use": "adamw", "lr": 0.01},
            "training": TRAINING,
        } | more  # fmt: skip
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        (folder / "recipe.yaml").write_text(yaml.safe_dump({k: v for k, v in tree.items() if v is not None}))
        return folder

    return write
