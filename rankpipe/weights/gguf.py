"""From GGUF to safetensors, once, so that later starts take seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rankpipe.catalog import need, require
from rankpipe.weights.table import Model


def require_packages(model: Model) -> None:
    """Refuse before anything is downloaded what could not be dequantised.

    :raises MissingExtra: If a package is missing.
    """
    for package in ("torch", "transformers", "gguf"):
        require(package, name=model.alias, extra="lm")


def dequantise(model: Model, file: Path, folder: Path) -> None:
    """Write the model, its tokenizer and chat template into ``folder`` in single precision.

    Half precision would not do: a Q4_1 weight is ``scale * q + offset`` of two 16-bit floats, and of SmolLM2's
    embeddings 21 % are exact in float16 and 3 % in bfloat16.
    """
    transformers = need("transformers", name=model.alias, extra="lm")
    with _quiet():
        read = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
        tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        config = read.config
        del config.quantization_config  # transformers refuses to save what it holds to be quantised
        plain = transformers.LlamaForCausalLM(config)
        plain.load_state_dict(read.state_dict())
        plain.generation_config = read.generation_config
        tokenizer.model_max_length = model.max_length
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextmanager
def _quiet() -> Iterator[None]:
    """Transformers without its log lines and progress bars, as it was before when the block ends."""
    log = need("transformers.utils.logging", name="gguf", extra="lm")
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
