"""The Hugging Face hub, or rather a small one of our own: the client library is the real one."""

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

REVISION = "a" * 40
MODELS = {
    "o/both": ["config.json", "model.safetensors", "pytorch_model.bin", "onnx/model.onnx", "1_Pooling/config.json"],
    "o/older": ["config.json", "pytorch_model.bin", "tf_model.h5"],
    "o/bare": ["config.json"],
    "o/graphs": [
        "config.json",
        "tokenizer.json",
        *(f"onnx/model{n}.onnx" for n in ("_q4", "_quantized", "_uint8")),
        "onnx/model_q4.onnx_data",
    ],
}


class Hub(BaseHTTPRequestHandler):
    """What of the hub's interface a download uses."""

    def do_GET(self) -> None:
        path = self.path.split("?")[0].removeprefix("/api/models")
        name = "/".join(path.split("/")[1:3])
        if name not in MODELS:
            return self.reply(404, b"{}")
        if "/tree/" in path:
            files = [{"type": "file", "path": f, "size": len(f), "oid": "0" * 40} for f in MODELS[name]]
            return self.reply(200, json.dumps(files).encode())
        if "/resolve/" in path:
            file = path.split(f"/resolve/{REVISION}/")[1]
            return self.reply(200, file.encode(), {"X-Repo-Commit": REVISION, "ETag": f'"{file.replace("/", "-")}"'})
        about = {"id": name, "sha": REVISION, "siblings": [{"rfilename": f} for f in MODELS[name]]}
        return self.reply(200, json.dumps(about).encode())

    do_HEAD = do_GET

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What resolving each model gives, in a process of its own: the client reads its settings when it is imported."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    code = """
import json, sys
from rankpipe import weights
from rankpipe.errors import MissingWeights
said = {}
for name in [*sys.argv[1:], "o/both", "o/graphs"]:
    try:
        before = weights.state(name)
        folder = weights.resolve(name)
        files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
        said[name + " again" * (name in said)] = [before, weights.identity(folder), *files]
    except MissingWeights as error:
        said[name] = [str(error)]
print(json.dumps(said))
"""
    folder = tmp_path_factory.mktemp("hub")
    there = {
        "HF_HOME": str(folder), "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0",
        "RANKPIPE_CACHE": str(folder / "ours"), "RANKPIPE_OFFLINE": "",
    }  # fmt: skip
    names = ["o/both", "o/older", "o/bare", "o/graphs", "o/absent", "bge-base", f"o/older@{REVISION}"]
    done = subprocess.run([sys.executable, "-c", code, *names], env=os.environ | there, capture_output=True, text=True)
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_model_is_downloaded_once_and_then_cached(said: dict[str, list[str]]) -> None:
    assert said["o/both again"] == [
        "cached", f"hub:{REVISION[:12]}", "1_Pooling/config.json", "config.json", "model.safetensors"
    ]  # fmt: skip


def test_older_forms_are_taken_where_there_is_no_safetensors(said: dict[str, list[str]]) -> None:
    assert said["o/older"] == ["hub", f"hub:{REVISION[:12]}", "config.json", "pytorch_model.bin"]
    assert said[f"o/older@{REVISION}"][1:] == said["o/older"][1:]


def test_of_several_graphs_one_is_taken_where_there_is_nothing_else(said: dict[str, list[str]]) -> None:
    assert said["o/graphs"][2:] == ["config.json", "onnx/model_quantized.onnx", "tokenizer.json"]
    assert said["o/graphs again"][0] == "cached"


def test_what_the_hub_lacks_is_said(said: dict[str, list[str]]) -> None:
    assert "no weights" in said["o/bare"][0]
    assert "o/absent: the hub did not give it" in said["o/absent"][0]
    assert "hf download o/absent --local-dir" in said["o/absent"][0]
    assert said["bge-base"][0].startswith("BAAI/bge-base-en-v1.5: the hub did not give it")


def test_the_id_of_an_embedded_model_is_the_hubs_copy_if_there_is_one(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--BAAI--bge-small-en-v1.5" / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text(REVISION)
    (snapshot / "config.json").write_text("{}")
    code = """
from rankpipe import weights
print(weights.hub.cached("BAAI/bge-small-en-v1.5"), weights.is_onnx("BAAI/bge-small-en-v1.5"))
"""
    there = {"HF_HOME": str(tmp_path)}

    def run() -> str:
        done = subprocess.run([sys.executable, "-c", code], env=os.environ | there, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert run() == "None True"  # half a download is none
    (snapshot / "model.safetensors").touch()
    assert run() == f"{snapshot} False"
