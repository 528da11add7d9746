"""Connections to one server, which stay open from one request to the next."""

from __future__ import annotations

import os
import ssl
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from io import BufferedReader, RawIOBase
from socket import SHUT_RDWR, socket
from threading import Lock
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import SplitResult

IDLE_S = 4.0  # how long one may wait to be used again: uvicorn, and so vLLM, closes it after 5, and routers forget it
STALE = (ConnectionError, ssl.SSLEOFError)  # how it shows that the server had closed one

Ask = Callable[[HTTPConnection], HTTPResponse]


class Unreached(TimeoutError):
    """The connection took too long."""


class Idle(NamedTuple):
    """A connection that nobody uses now."""

    pid: int  # of the process that opened it: a fork has a copy, and must leave it alone
    since: float
    connection: HTTPConnection


class Due(RawIOBase):
    """What a socket receives until a deadline, which all its pieces share."""

    def __init__(self, sock: Any, deadline: float) -> None:
        self._sock, self._raw, self._deadline = sock, sock.makefile("rb", buffering=0), deadline

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As many bytes as are there, at least one; 0 at the end.

        :raises TimeoutError: If there are none at the deadline.
        """
        self._sock.settimeout(left(self._deadline))
        return int(self._raw.readinto(buffer))

    def close(self) -> None:
        """The socket closes when its connection has let go of it, too."""
        self._raw.close()
        super().close()


class Reply(HTTPResponse):
    """One that is read until a deadline, its headers too."""

    def __init__(self, sock: Any, *told: Any, deadline: float, **more: Any) -> None:
        super().__init__(sock, *told, **more)
        self.fp.close()
        self.fp = BufferedReader(Due(sock, deadline))


class Connections:
    """Used again as soon as a reply was read whole, for as long as the server keeps them open. There are never more of
    them than there were requests at once.
    """

    def __init__(self, url: SplitResult, connect_s: float) -> None:
        self.reached = False  # whether the server has ever taken one
        self._url, self._connect_s = url, connect_s
        self._lock, self._idle = Lock(), list[Idle]()
        self._sockets, self.cuts = weakref.WeakSet[Any](), 0
        weakref.finalize(self, _close, self._idle)

    @contextmanager
    def asked(
        self, method: str, path: str, data: bytes | None, headers: Mapping[str, str], deadline: float, cuts: int
    ) -> Iterator[HTTPResponse]:
        """A reply, to be read whole inside.

        Where the server had closed the connection, which it may at any time between two requests, the request is sent
        once more over a new one.

        :param cuts: how many there had been when it was decided to ask; after another one nothing is asked.
        :raises ConnectionAbortedError: If there was another cut.
        :raises Unreached: If there is no connection within ``connect_s``.
        :raises TimeoutError: If the reply has not begun at the deadline; reading it raises the same.
        """

        def ask(connection: HTTPConnection) -> HTTPResponse:
            connection.sock.settimeout(left(deadline))
            with self._lock:
                if self.cuts > cuts:
                    raise ConnectionAbortedError
                self._sockets.add(connection.sock)
            connection.response_class = partial(Reply, deadline=deadline)  # type: ignore[assignment]
            connection.request(method, path, data, dict(headers))
            return connection.getresponse()

        connection, response = self._answered(ask, deadline, cuts)
        whole = False
        try:
            with response:
                yield response
            whole = connection.sock is not None
        finally:
            if whole:
                self._put(connection)
            else:
                connection.close()

    def cut(self) -> None:
        """End all requests that are under way, for nobody waits for them any more."""
        with self._lock:
            self.cuts += 1
            for one in self._sockets:
                with suppress(OSError):  # of one that is closed
                    socket.shutdown(one, SHUT_RDWR)

    def _answered(self, ask: Ask, deadline: float, cuts: int) -> tuple[HTTPConnection, HTTPResponse]:
        if used := self._taken():
            with suppress(*STALE):
                return used, _or_closed(used, ask)
            if self.cuts > cuts:
                raise ConnectionAbortedError
        new = self._made(deadline)
        return new, _or_closed(new, ask)

    def _taken(self) -> HTTPConnection | None:
        """The one that was used last, if there is one that can be."""
        with self._lock:
            while self._idle:
                idle = self._idle.pop()
                if idle.pid == os.getpid() and monotonic() - idle.since < IDLE_S:
                    return idle.connection
                idle.connection.close()
        return None

    def _put(self, connection: HTTPConnection) -> None:
        with self._lock:
            self._idle.append(Idle(os.getpid(), monotonic(), connection))

    def _made(self, deadline: float) -> HTTPConnection:
        host, port, timeout_s = self._url.hostname or "", self._url.port, min(self._connect_s, left(deadline))
        if self._url.scheme == "https":
            connection: HTTPConnection = HTTPSConnection(host, port, timeout=timeout_s, context=self._tls)
        else:
            connection = HTTPConnection(host, port, timeout=timeout_s)
        try:
            _or_closed(connection, lambda new: new.connect())
        except TimeoutError:
            raise Unreached from None
        self.reached = True
        return connection

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()


def left(deadline: float) -> float:
    """Seconds until then.

    :raises TimeoutError: If there are none.
    """
    seconds = deadline - monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _or_closed(connection: HTTPConnection, use: Callable[[HTTPConnection], Any]) -> Any:
    try:
        return use(connection)
    except BaseException:
        connection.close()
        raise


def _close(idle: list[Idle]) -> None:
    while idle:
        idle.pop().connection.close()
