"""From GGUF to safetensors, once, so that later starts take seconds."""

from __future__ import annotations

import io
import shutil
from contextlib import redirect_stderr
from pathlib import Path

from rankpipe.catalog import need, require
from rankpipe.errors import ModelError
from rankpipe.weights.quiet import quiet
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

    :raises ModelError: If the file lacks weights that the model has.
    """
    transformers = need("transformers", name=model.alias, extra="lm")
    source = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    with quiet(), redirect_stderr(io.StringIO()):  # its progress bar heeds no setting
        read, info = transformers.AutoModelForCausalLM.from_pretrained(**source, output_loading_info=True)
        if missing := sorted(info["missing_keys"]):
            raise ModelError(f"{file}: {len(missing)} weights are missing, the first is {missing[0]}")
        tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
        tokenizer.model_max_length = model.max_length
        config = read.config
        del config.quantization_config  # transformers refuses to save what it holds to be quantised
        plain = transformers.LlamaForCausalLM(config)
        plain.load_state_dict(read.state_dict())
        plain.generation_config = read.generation_config
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    shutil.copymode(folder / "config.json", folder / "model.safetensors")  # which came out readable by its owner only
