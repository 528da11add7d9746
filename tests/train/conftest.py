"""Tiny models with random weights and SmolLM2's own tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory, embedded: Callable[[str], Path], one_thread: None) -> Path:
    """A chat model of two layers."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tiny-chat")
    tokenizer = transformers.AutoTokenizer.from_pretrained(embedded("smollm2"))
    tokenizer.save_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=1024, tie_word_embeddings=True, initializer_range=0.3,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(3)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


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
