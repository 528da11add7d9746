"""A server on loopback that does what a test tells it to, request by request, and is gone when the test ends."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CHAT = "/v1/chat/completions"
PATHS = {
    "models": "/v1/models", "tokenize": "/tokenize", "rerank": "/v1/rerank", "info": "/v1/info", "sizes": "/v1/tokenize"
}  # fmt: skip
Act = Callable[["Handler", Any], None]  # (handler, the request's JSON)


class Handler(BaseHTTPRequestHandler):
    """Does the next act of the script of its path; the last one again and again."""

    server: Server

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.connections.append(self.connection)
        if self.server.alive:
            self.protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self._do(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def do_GET(self) -> None:
        self._do(None)

    def _do(self, body: Any) -> None:
        with self.server.lock:
            script = self.server.scripts.get(self.path, [say({"detail": "Not Found"}, 404)])
            act = script.pop(0) if len(script) > 1 else script[0]
            self.server.asked.append((self.path, body, dict(self.headers)))
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        try:
            act(self, body)
        finally:
            with self.server.lock:
                self.server.now -= 1

    def send(self, status: int, content: bytes, promised: int | None = None, **headers: str) -> None:
        with self.server.lock:
            self.server.now -= 1  # before the client can know
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if promised is None else promised))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)
        with self.server.lock:
            self.server.now += 1

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for all of them

    def __init__(self, scripts: dict[str, list[Act]], alive: bool) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.alive, self.connections = alive, list[socket.socket]()  # all there ever were
        self.scripts, self.lock, self.over = scripts, threading.Lock(), threading.Event()
        self.asked: list[tuple[str, Any, dict[str, str]]] = []
        self.now = self.most = 0  # requests under way, and the most there were

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def bodies(self, path: str = CHAT) -> list[Any]:
        return [body for asked, body, _ in self.asked if asked == path]

    def server_close(self) -> None:
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that has gone is part of some tests


@contextmanager
def serving(chat: Sequence[Act] = (), *, alive: bool = False, **more: Sequence[Act]) -> Iterator[Server]:
    """A running server.

    :param alive: it leaves connections open after a reply.
    :param more: further paths that it knows: those of ``PATHS``.
    """
    server = Server({CHAT: list(chat), **{PATHS[name]: list(script) for name, script in more.items()}}, alive)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def completion(text: str | None, tokens_in: int = 10, tokens_out: int = 5, **choice: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}, **choice}
    usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}
    return {"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}


def say(told: Any, status: int = 200, **headers: str) -> Act:
    """JSON, or bytes as they are."""
    content = told if isinstance(told, bytes) else json.dumps(told).encode()
    return lambda handler, body: handler.send(status, content, **headers)


def well(text: str = "fine", **more: Any) -> Act:
    return say(completion(text, **more))


def echo(handler: Handler, body: Any) -> None:
    """The chat's last message back, in upper case, after a while that differs."""
    text = body["messages"][-1]["content"]
    time.sleep(0.01 + 0.02 * (hash(text) % 5))
    handler.send(200, json.dumps(completion(text.upper(), len(text), 2)).encode())


def stall(handler: Handler, body: Any) -> None:
    handler.server.over.wait(30)


def drip(handler: Handler, body: Any) -> None:
    """A byte at a time, each in good time."""
    handler.send(200, b"", promised=1000)
    while not handler.server.over.wait(0.05):
        handler.wfile.write(b" ")


def flood(handler: Handler, body: Any) -> None:
    """A good reply, after 80 MiB of blanks."""
    content = json.dumps(completion("at last")).encode()
    handler.send(200, b"", promised=(80 << 20) + len(content))
    for _ in range(80):
        handler.wfile.write(b" " * (1 << 20))
    handler.wfile.write(content)


def reset(handler: Handler, body: Any) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def hang_up(handler: Handler, body: Any) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def break_off(handler: Handler, body: Any) -> None:
    content = json.dumps(completion("[1] > [2]")).encode()
    handler.send(200, content[:-20], promised=len(content))


def gone(act: Act) -> Act:
    """The act, and then the connection is closed, of which nothing was said."""

    def both(handler: Handler, body: Any) -> None:
        act(handler, body)
        handler.close_connection = True

    return both


def chunked(handler: Handler, body: Any) -> None:
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    content = json.dumps(completion("in pieces")).encode()
    for piece in (content[:7], content[7:]):
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        time.sleep(0.02)
    handler.wfile.write(b"0\r\n\r\n")
    handler.close_connection = True
