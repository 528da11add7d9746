"""What tests of indexes may ask for: a server of Milvus, which is in another process."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of Milvus Lite."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = "from milvus_lite.adapter.grpc.server import run_server; run_server(*sys.argv[1:3], int(sys.argv[3]))"
    folder = str(tmp_path_factory.mktemp("server"))
    server = subprocess.Popen([sys.executable, "-c", f"import sys; {run}", folder, "127.0.0.1", str(port)])
    for _ in range(600):
        with socket.socket() as knock:
            if not knock.connect_ex(("127.0.0.1", port)):
                break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait()
