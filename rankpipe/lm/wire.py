"""JSON to a server and back, by the standard library: timeouts, bounded retries, so many requests at once and no more.

Errors hold the server's words, never the key. No proxy is used and no redirect followed, so that what is sent reaches
the one server that was named.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from threading import BoundedSemaphore, Event, Lock
from time import monotonic
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from rankpipe.errors import ModelError, RankpipeError, RecipeError
from rankpipe.lm.connections import Connections, Unreached
from rankpipe.lm.due import patience
from rankpipe.lm.words import astray, is_page, refused, words
from rankpipe.progress import counting, done, notice
from rankpipe.threads import Pool

T = TypeVar("T")
PASSING = {408, 409, 429, *range(500, 600)} - {501}  # what may go better the next time
NOBODY = (ConnectionRefusedError, socket.gaierror)  # the host has no such server, or nobody knows the host
CHUNK_BYTES = 1 << 16
MOST_BYTES = 1 << 26  # of a reply: the tokens of a chat of a million are 10 MB


@dataclass(frozen=True)
class Manners:
    """How a server is treated.

    :param parallel: requests at once, at most.
    :param connect_s: how long a connection may take.
    :param whole_s: how long one request may take, from the connection's start to the reply's last byte.
    :param probe_s: the same for a question beside the work: which models there are, how many tokens a text has.
    :param tries: requests for one reply, the first included.
    :param wait_s: before the second; twice as long before each further one. Up to half of it is left to chance, so
        that clients do not come back all at once.
    :param longest_s: no wait is longer. A server that asks for more (Retry-After) is given up at once.
    :param limit: how it calls the most tokens of a reply; OpenAI's newer models know the longer name only.
    :param sleep: how one waits, unless the event says that it is no use any more.
    :param chance: from 0 to 1.
    """

    parallel: int = 8
    connect_s: float = 10
    whole_s: float = 600
    probe_s: float = 10
    tries: int = 6
    wait_s: float = 1
    longest_s: float = 60
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    sleep: Callable[[Event, float], object] = field(default=Event.wait, repr=False)
    chance: Callable[[], float] = field(default=random.random, repr=False)

    def __post_init__(self) -> None:
        least = min(self.parallel, self.tries)
        if least < 1 or min(self.connect_s, self.whole_s, self.probe_s) <= 0 or min(self.wait_s, self.longest_s) < 0:
            raise RecipeError([f"{self}: at least one request, one try, some time, and no wait below 0"])

    def wait(self, failures: int, asked_s: float) -> float:
        """Seconds to wait after so many failures, of which the last one asked for ``asked_s``."""
        backoff_s = min(self.wait_s * 2.0 ** min(failures - 1, 60), self.longest_s) * (1 - self.chance() / 2)
        return max(backoff_s, asked_s)


class Refusal(ModelError):
    """The server will not do it, however often it is asked."""

    def __init__(self, message: str, status: int = 0) -> None:
        self.status = status  # of HTTP; 0 where that was well
        super().__init__(message)


class Fault(Exception):
    """This time it did not work. Whoever reads a reply raises it where the reply is garbled."""

    def __init__(self, message: str, asked_s: float = 0) -> None:
        self.asked_s = asked_s
        super().__init__(message)


class Wire:
    """A server, known by the URL that its paths start at. Connections stay open from one request to the next.

    One that has never been there is not waited for: the first request that finds nobody fails at once.

    :param key: the environment variable with the API key, read when it is used and kept nowhere.
    """

    def __init__(self, url: str, key: str | None, manners: Manners) -> None:
        parts = urlsplit(url)
        try:
            _ = parts.port
        except ValueError as error:
            raise RecipeError([f"url: {url!r}: {error}"]) from None
        if parts.username or parts.password or parts.query or parts.fragment:
            raise RecipeError(["url: only scheme, host and path; a secret belongs into the environment, see key="])
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RecipeError([f"url: {url!r}; expected something like http://127.0.0.1:8000/v1"])
        if key is not None and not re.fullmatch(r"[A-Za-z_]\w*", key):
            raise RecipeError(["key: expected the name of an environment variable, not the key itself"])
        self.url, self.key, self.manners = url.rstrip("/"), key, manners
        self._connections, self._slots = Connections(parts, manners.connect_s), BoundedSemaphore(manners.parallel)
        self._lock, self.requests = Lock(), 0

    def ask(self, path: str, body: Any, read: Callable[[Any], T], stop: Event, *, probe: bool = False) -> T:
        """What ``read`` makes of the reply to ``body`` (of a GET if it is None), after as many tries as it takes.

        :param path: below the URL; beside its ``/v1`` if it begins with a slash.
        :param read: raises :class:`Fault` if it cannot make sense of the reply, which counts as a failed try.
        :param stop: once it is set nothing is asked any more.
        :param probe: a question beside the work, for which nobody waits long; a reply that is no JSON is a refusal.
        :raises ModelError: If every try failed, with what was wrong the last time.
        :raises Refusal: If the server refused.
        """
        data = None if body is None else json.dumps(body).encode()
        url = self._target(path)
        failures = 0
        while True:
            try:
                with self._slots:
                    cuts = self._connections.cuts  # before the look at stop, which is set before they are cut
                    if stop.is_set():
                        raise ModelError(f"{url}: not asked any more, because another request failed for good")
                    return read(self._once(url, data, probe, cuts))
            except Fault as fault:
                failures += 1
                self._pause(f"{url}: {fault}", failures, fault.asked_s, stop)

    def together(self, n: int, one: Callable[[int, Event], T], name: str) -> list[T | None]:
        """What ``one`` makes of each of ``n`` places, in order; as many at once as the manners allow. None for all that
        is still under way when nothing has come for as long as is worth waiting (:mod:`rankpipe.lm.due`).

        The first failure is raised, and no more is begun or tried again after it. What is under way then is still
        waited for; but not where the user interrupts.

        :param one: is given the place, and the event for :meth:`ask`.
        """
        stop, failed = Event(), list[RankpipeError]()

        def tried(place: int) -> T:
            try:
                return one(place, stop)
            except RankpipeError as error:
                failed.append(error)
                stop.set()
                raise

        pool = Pool(min(self.manners.parallel, n or 1))
        try:
            futures = [pool.submit(tried, place) for place in range(n)]
            waiting, came = set(futures), set(futures)
            with counting(f"{name}: requests", n):
                while waiting and came:
                    came, waiting = wait(waiting, patience(), FIRST_COMPLETED)
                    for future in came:
                        future.result()
                        done()
            if waiting:
                self._give_up(len(waiting), n, stop)
            return [None if future in waiting else future.result() for future in futures]
        except RankpipeError:
            raise failed[0] from None  # the others may be what it led to
        except KeyboardInterrupt:
            self._end(stop)
            raise
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)

    def _give_up(self, late: int, n: int, stop: Event) -> None:
        notice(
            f"{self.url}: {late} of {n} requests were not answered in the {patience():.3g} s that their queries have "
            "left, and count as empty replies"
        )
        self._end(stop)

    def _end(self, stop: Event) -> None:
        """Wait for nothing any more."""
        stop.set()
        self._connections.cut()

    def _pause(self, what: str, failures: int, asked_s: float, stop: Event) -> None:
        manners = self.manners
        tried = f"tried {failures} times" if failures > 1 else "tried once"
        if failures == manners.tries:
            raise ModelError(f"{what} ({tried})")
        if asked_s > manners.longest_s:
            raise ModelError(
                f"{what} ({tried}; it asks to wait {asked_s:.0f} s, and longest_s is {manners.longest_s:g})"
            )
        wait_s = manners.wait(failures, asked_s)
        if not stop.is_set():
            notice(f"{what}; asking again in {wait_s:.0f} s (try {failures + 1} of {manners.tries})")
        manners.sleep(stop, wait_s)

    def _once(self, url: str, data: bytes | None, probe: bool, cuts: int) -> Any:
        """One request.

        :raises Fault: If it may go better the next time.
        :raises Refusal: If not.
        """
        with self._lock:
            self.requests += 1
        within_s = min(self.manners.probe_s, self.manners.whole_s) if probe else self.manners.whole_s
        status, content, after = self._exchange(url, data, self._secret(), within_s, cuts)
        if status in PASSING:
            raise Fault(refused(status, content), _seconds(after))
        if not 200 <= status < 300:
            raise Refusal(f"{url}: {refused(status, content)}{astray(self.url, status, content)}", status)
        try:
            return json.loads(content)
        except ValueError:
            said = f"the reply is no JSON: {words(content) if is_page(content) else repr(words(content))}"
            if probe:
                raise Refusal(f"{url}: {said}{astray(self.url, status, content)}", status) from None
            raise Fault(said) from None

    def _exchange(self, url: str, data: bytes | None, key: str, within_s: float, cuts: int) -> tuple[int, bytes, str]:
        """Status, body and Retry-After; the key, should the server have said it, is crossed out."""
        headers = {"Content-Type": "application/json", "User-Agent": "rankpipe"}
        headers |= {"Authorization": f"Bearer {key}"} if key else {}
        method, deadline = "GET" if data is None else "POST", monotonic() + within_s
        try:
            with self._connections.asked(method, urlsplit(url).path, data, headers, deadline, cuts) as response:
                content = _content(response, url)
                return response.status, _crossed_out(content, key.encode()), response.headers.get("Retry-After", "")
        except Unreached:
            raise Fault(f"no connection within {self.manners.connect_s:g} s") from None
        except TimeoutError:
            raise Fault(f"no whole reply within {within_s:g} s") from None
        except ssl.SSLCertVerificationError as error:
            raise Refusal(f"{url}: {error.verify_message}") from None
        except (OSError, HTTPException) as error:
            said = f"{type(error).__name__}: {words(_crossed_out(str(error).encode(), key.encode()))}"
            if isinstance(error, NOBODY) and not self._connections.reached:
                raise Refusal(f"{url}: {said}; is the server up, and this its address?") from None
            raise Fault(said) from None

    def _target(self, path: str) -> str:
        return self.url.removesuffix("/v1") + path if path.startswith("/") else f"{self.url}/{path}"

    def _secret(self) -> str:
        if self.key is None:
            return ""
        secret = os.environ.get(self.key, "").strip()
        if not secret or not secret.isascii() or not secret.isprintable():
            raise Refusal(f"the environment variable {self.key} is to hold the key of {self.url}, and does not")
        return secret


def _crossed_out(said: bytes, key: bytes) -> bytes:
    return said.replace(key, b"***") if key else said


def _seconds(retry_after: str) -> float:
    """How long a server asks to wait: seconds, or a date. What is neither asks for nothing."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        date = parsedate_to_datetime(retry_after)
    except (TypeError, ValueError):
        return 0
    return max((date.astimezone(UTC) - datetime.now(UTC)).total_seconds(), 0)


def _content(response: HTTPResponse, url: str) -> bytes:
    """The whole body.

    :raises Refusal: If it is longer than any answer can be.
    """
    content, piece = bytearray(), b" "
    while piece and not response.isclosed():
        piece = response.read1(CHUNK_BYTES)
        content += piece
        if len(content) > MOST_BYTES:
            raise Refusal(f"{url}: a reply of more than {MOST_BYTES} bytes; is this the address of a model's server?")
    if response.length:
        raise Fault(f"the reply breaks off, {response.length} bytes before its end")
    return bytes(content)
