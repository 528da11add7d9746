"""Where work is done that comes in independent pieces: in this process, or in those of a Ray cluster.

What is given back, and in which order, does not depend on the engine. The machines of a cluster are taken to have the
file system in common that the work is on, and the same rankpipe: :meth:`Ray.sees` makes sure of both.
"""

from __future__ import annotations

import os
import pickle
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar
from weakref import ref

from rankpipe.aside import settings
from rankpipe.catalog import need, require
from rankpipe.errors import ClusterError, RankpipeError, RecipeError

I = TypeVar("I")  # noqa: E741  what a piece of work is made of
O = TypeVar("O")  # noqa: E741  what it gives
KEPT = 16  # things to do that a process of a crew keeps ready
SOON_S = 10  # for more processes, where some are there already
OURS = "RANKPIPE_"  # settings of the environment that go with the work
_joined: dict[str, str | None] = {}  # clusters, each with the address it was joined by; any other name may be its, too


class Engine(Protocol):
    """Does work. What is called must be fit for pickle, and keeps its state from item to item in each process."""

    @property
    def workers(self) -> int:
        """How many pieces of work are done at once."""
        ...

    def map(self, do: Callable[[I], O], items: Iterable[I]) -> Iterator[O]:
        """``do`` of each item, in order; items are taken as they are needed."""
        ...

    def crew(self, dos: Sequence[Callable[[I], O]]) -> Callable[[I], list[O]]:
        """Keep these ready side by side, ``workers`` at most; what is given asks all of them about an item."""
        ...

    def sees(self, *paths: Path) -> None:
        """Make sure that whoever does the work sees these files or folders, which nobody else has under these names."""
        ...


class Local:
    """Does all in this process, one after the other."""

    workers = 1

    def map(self, do: Callable[[I], O], items: Iterable[I]) -> Iterator[O]:
        """``do`` of each item."""
        return map(do, items)

    def crew(self, dos: Sequence[Callable[[I], O]]) -> Callable[[I], list[O]]:
        """Ask one after the other."""
        return lambda item: [do(item) for do in dos]

    def sees(self, *paths: Path) -> None:
        """It does."""


class Ray:
    """Deals work out to the processes of a Ray cluster. What one that dies was at is done again by another.

    Workers work in this process's folder, with its settings ``RANKPIPE_*``. An error arrives as it was raised.

    :param address: of a running cluster (``HOST:PORT``; ``auto`` finds one on this machine); None starts one here, or
        joins the one that the program has started.
    :param cpus: cores of each worker, and threads that it computes with if OMP_NUM_THREADS is not set.
    :param gpus: of each worker; a share (0.5) where several have one GPU together.
    :param replacements: how often a piece of work is begun again because a worker died.
    :param timeout_s: how long a cluster may take to answer at all.
    :raises MissingExtra: If Ray is not installed.
    """

    def __init__(
        self,
        address: str | None = None,
        cpus: float = 1,
        gpus: float = 0,
        replacements: int = 2,
        timeout_s: float = 60,
    ) -> None:
        require("ray", name="engine ray", extra="ray")
        if min(cpus, timeout_s) <= 0 or min(gpus, replacements) < 0:
            numbers = f"cpus={cpus}, timeout_s={timeout_s}, gpus={gpus}, replacements={replacements}"
            raise RecipeError([f"{numbers}: the first two are above 0, nothing is below"])
        self.address, self.cpus, self.gpus = address, cpus, gpus
        self.replacements, self.timeout_s = replacements, timeout_s
        self._crews = list[ref[Any]]()  # processes that stay, as long as somebody holds them

    @cached_property
    def workers(self) -> int:
        """As many as the cluster has room for.

        :raises ClusterError: If it has room for none.
        """
        has = self._ray.cluster_resources()
        room = [has.get(kind, 0) // each for kind, each in (("CPU", self.cpus), ("GPU", self.gpus)) if each]
        if not (fit := int(min(room))):
            told = ", ".join(f"{has.get(kind, 0):g} {kind}" for kind in ("CPU", "GPU"))
            raise ClusterError(f"a worker is to have {self.cpus:g} CPU and {self.gpus:g} GPU, but Ray has {told}")
        return fit

    def map(self, do: Callable[[I], O], items: Iterable[I]) -> Iterator[O]:
        """``do`` of each item, by whichever worker is free; twice as many items as workers are under way at most.

        :raises ClusterError: If workers die again and again.
        """
        task = self._ray.remote(_done).options(**self._room, max_retries=self.replacements)
        told, waiting = pickle.dumps(do), deque[Any]()
        try:
            for item in items:
                waiting.append(task.remote(self._place, told, item))
                if len(waiting) == 2 * self.workers:
                    yield self._told(waiting.popleft())
            while waiting:
                yield self._told(waiting.popleft())
        finally:
            for left in waiting:
                self._ray.cancel(left)

    def crew(self, dos: Sequence[Callable[[I], O]]) -> Callable[[I], list[O]]:
        """A process for each, if there is room, which stays until what is given is dropped, and serves other crews
        meanwhile: they would wait for each other's room for ever. One that dies is replaced.

        :raises ClusterError: If no process is started in time, or they die again and again.
        """
        told, crew = [pickle.dumps(do) for do in dos], self._started(min(len(dos), self.workers))

        def ask(item: I) -> list[O]:
            shared = self._ray.put(item)
            asked = [one.done.remote(self._place, do, shared) for one, do in zip(cycle(crew), told, strict=False)]
            return [self._told(one) for one in asked]

        return ask

    def _started(self, wanted: int) -> list[Any]:
        """So many processes that stay, those of other crews first; fewer, if no more have room in time."""
        living = [one for known in self._crews if (one := known()) is not None]
        room = {**self._room, "max_restarts": -1, "max_task_retries": self.replacements}
        fresh = [self._ray.remote(_Worker).options(**room).remote() for _ in range(wanted - len(living))]
        if ready := {one.ready.remote(): one for one in fresh}:
            patience = min(self.timeout_s, SOON_S) if living else self.timeout_s
            there, _ = self._ray.wait([*ready], num_returns=len(ready), timeout=patience)
            living += [ready[one] for one in there]
        if wanted and not living:
            raise self._busy()
        self._crews = [ref(one) for one in living]
        return living[:wanted]

    def sees(self, *paths: Path) -> None:
        """Have every machine of the cluster look for them, and for the folder that this process runs in.

        :raises ClusterError: If one does not see them, has another version of rankpipe, or does not answer.
        """
        affinity = need("ray.util.scheduling_strategies", name="engine ray", extra="ray").NodeAffinitySchedulingStrategy
        nodes = [n for n in self._ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) >= self.cpus]
        look, sought = self._ray.remote(_look), [os.getcwd(), *(str(path.absolute()) for path in paths)]
        asked = [
            look.options(num_cpus=0, scheduling_strategy=affinity(n["NodeID"], soft=False)).remote(sought)
            for n in nodes
        ]
        seen = [self._told(one, self.timeout_s) for one in asked]
        names = [n["NodeManagerAddress"] for n in nodes]
        if blind := {name: path for name, (lacking, _) in zip(names, seen, strict=True) for path in lacking}:
            machines, path = ", ".join(blind), next(iter(blind.values()))
            raise ClusterError(f"{path}: not seen by {machines}; it must be on a file system that all machines share")
        if other := [f"{name} has {v}" for name, (_, v) in zip(names, seen, strict=True) if v != _version()]:
            raise ClusterError(f"rankpipe here is {_version()}, but {', '.join(other)}; install the same everywhere")

    @cached_property
    def _ray(self) -> Any:
        return connected(self.address, self.timeout_s)

    @property
    def _room(self) -> dict[str, float]:
        return {"num_cpus": self.cpus, "num_gpus": self.gpus}

    @property
    def _place(self) -> Place:
        return Place(os.getcwd(), {k: v for k, v in os.environ.items() if k.startswith(OURS)})

    def _busy(self) -> ClusterError:
        return ClusterError(f"Ray started no worker within {self.timeout_s:g} s; is the cluster busy?")

    def _told(self, asked: Any, timeout_s: float | None = None) -> Any:
        errors = need("ray.exceptions", name="engine ray", extra="ray")
        try:
            told = self._ray.get(asked, timeout=timeout_s)
        except errors.GetTimeoutError:
            raise self._busy() from None
        except errors.RayTaskError:
            raise  # a bug, or a rankpipe that is not there
        except errors.RayError as error:
            raise ClusterError(
                f"a worker died, and so did those that took its place ({self.replacements}): {error}"
            ) from error
        if isinstance(told, Failure):
            raise told.error
        return told


class Place(NamedTuple):
    """Where work starts from."""

    folder: str
    settings: dict[str, str]

    def enter(self) -> None:
        """Work from here on as there."""
        os.chdir(self.folder)
        os.environ.update(self.settings)


class _Worker:
    """Has things to do, in a process of its own, and keeps what it has loaded for them."""

    def __init__(self) -> None:
        self._loaded = lru_cache(maxsize=KEPT)(pickle.loads)

    def ready(self) -> None:
        """It is."""

    def done(self, place: Place, do: bytes, item: Any) -> Any:
        """What comes of an item."""
        return _done(place, do, item, self._loaded)


@lru_cache(maxsize=1)
def _loaded(do: bytes) -> Any:
    """What was loaded for an item before serves the next."""
    return pickle.loads(do)


def _done(place: Place, do: bytes, item: Any, loaded: Callable[[bytes], Any] = _loaded) -> Any:
    place.enter()
    return answered(lambda: loaded(do)(item))


def _look(paths: Sequence[str]) -> tuple[list[str], str]:
    """Which of them are lacking here, and whose code this is."""
    return [path for path in paths if not os.path.exists(path)], _version()


def _version() -> str:
    import rankpipe

    return rankpipe.__version__


def connected(address: str | None, timeout_s: float = 60) -> Any:
    """Ray, joined to the cluster at an address, to the one that the program has joined before, or to a fresh one here.

    :raises ClusterError: If there is none at the address, or the program has joined another one.
    """
    ray = need("ray", name="engine ray", extra="ray")
    if ray.is_initialized():
        if address and address != _joined.get(ray.get_runtime_context().gcs_address, address):
            raise ClusterError(f"{address}: this program has joined another cluster; ray.shutdown() leaves that")
        return ray
    if address and ":" in address:  # Ray itself would try for many minutes
        host, port = address.removeprefix("ray://").rsplit(":", 1)
        try:
            socket.create_connection((host, int(port)), timeout_s).close()
        except (OSError, ValueError) as error:
            raise ClusterError(f"{address}: no Ray cluster answers ({error}); expected HOST:PORT of its head") from None
    try:
        with settings({"RAY_USAGE_STATS_ENABLED": "0"}):
            ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="error")
    except ConnectionError as error:
        said = " ".join(str(error).split())
        raise ClusterError(f"{address}: no Ray cluster answers ({said}); start one: ray start --head") from None
    _joined[ray.get_runtime_context().gcs_address] = address
    return ray


class Failure(NamedTuple):
    """An error that was raised in a worker."""

    error: RankpipeError


def answered(ask: Callable[[], O]) -> O | Failure:
    """Errors are answered, since Ray would log each one that nobody waits for any more."""
    try:
        return ask()
    except RankpipeError as error:
        return Failure(error)
