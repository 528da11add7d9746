"""vLLM's OpenAI-compatible server on loopback, for as long as a test needs it and never longer."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

PATIENCE_S = 600  # some 70 on an idle machine
DIE_WITH_PARENT = 1  # Linux: PR_SET_PDEATHSIG


@contextmanager
def running(model: Path, name: str, context: int, log: Path, loras: Mapping[str, Path]) -> Iterator[str]:
    """The URL of a server that is ready; its whole process group is gone afterwards, whatever happens here.

    :param loras: adapters by the names that they are served under.
    """
    port = _free()
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", name,
        "--dtype", "float32", "--enforce-eager", "--max-model-len", str(context), "--generation-config", "vllm",
        "--host", "127.0.0.1", "--port", str(port),
        "--enable-lora", "--max-lora-rank", "8", "--lora-modules",
        *(f"{lora}={folder}" for lora, folder in loras.items()),
    ]  # fmt: skip
    quiet = {"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    with log.open("w") as said:
        process = subprocess.Popen(
            command,
            stdout=said,
            stderr=said,
            env=os.environ | quiet,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    try:
        _wait(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        for how in (signal.SIGTERM, signal.SIGKILL):  # the second for what the first has left
            with suppress(ProcessLookupError):
                os.killpg(process.pid, how)
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-3000:]
        with suppress(URLError, OSError), urlopen(url, timeout=5):
            return
        time.sleep(1)
    raise TimeoutError(f"no server within {PATIENCE_S} s: {log.read_text()[-3000:]}")


def _free() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGTERM)
