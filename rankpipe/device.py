"""What models compute on here, and the number format in which that is fastest."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rankpipe.catalog import need

Dtype = Literal["float32", "bfloat16", "float16"]
CPU_FLAGS = Path("/proc/cpuinfo")


def default_device() -> str:
    """The first GPU if there is one, else the CPU; as torch names them."""
    return "cuda" if need("torch", name="this model", extra="lm").cuda.is_available() else "cpu"


def native_dtype(device: str) -> Dtype:
    """bfloat16 on a GPU or a CPU with instructions for it, else float32.

    Measured with MiniLM: bfloat16 is twice as fast as float32 on a CPU with avx512_bf16, five times slower on one
    that has to emulate it.
    """
    if device.startswith("cuda"):
        cuda = need("torch", name="this model", extra="lm").cuda
        native = not cuda.is_available() or cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if native else "float32"
    if device != "cpu":
        return "bfloat16"
    flags = CPU_FLAGS.read_text() if CPU_FLAGS.exists() else ""
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"
