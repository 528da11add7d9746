"""One language model in several processes, on several GPUs or machines, by Ray: the chats of a call are dealt out."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from copy import copy
from functools import cached_property
from typing import Any

from rankpipe.catalog import need, require
from rankpipe.engine import Failure, answered, connected
from rankpipe.errors import ModelError, RecipeError
from rankpipe.lm import AT_ONCE, LM, Chat, Choice, Completion, Likelihood, prepare
from rankpipe.lm.orders import Form


class Ray:
    """Answers are those of ``lm``, in order. It is not loaded here, but for its tokenizer: each worker loads its own.

    Worker ``i`` of ``n`` gets the chats ``i``, ``i + n``, ... of a call. One that dies is replaced, and asked the same
    again; what another worker was asked is not. An error of the model arrives as it was raised.

    :param lm: a model whose answers do not depend on what else is asked: ``hf`` or ``vllm``. A cache goes around this
        class, not inside; a server has workers of its own.
    :param workers: processes that each load the model.
    :param gpus: of each worker; a share (0.5) where several have one GPU together.
    :param cpus: cores that Ray keeps for each worker, and threads that it computes with; 0 keeps none and means one
        thread, if OMP_NUM_THREADS is not set.
    :param replacements: how often the chats of a call may be asked again because their worker died.
    :param address: of a running Ray cluster (``auto`` finds it); None starts one on this machine, or joins the one
        that the program has started.
    :raises MissingExtra: If Ray is not installed.
    """

    def __init__(
        self,
        lm: LM,
        workers: int = 2,
        gpus: float = 0,
        cpus: float = 0,
        replacements: int = 2,
        address: str | None = None,
    ) -> None:
        require("ray", name="ray", extra="ray")
        if workers < 1 or replacements < 0 or min(gpus, cpus) < 0:
            numbers = f"workers={workers}, replacements={replacements}, gpus={gpus}, cpus={cpus}"
            raise RecipeError([f"{numbers}: at least one worker, and nothing below 0"])
        self.lm, self.workers, self.gpus, self.cpus = lm, workers, gpus, cpus
        self.replacements, self.address = replacements, address
        self._recipe = _unloaded(lm)
        self.together = workers * getattr(lm, "together", 1)
        self.at_once = workers * getattr(lm, "at_once", AT_ONCE)
        self.thinking = getattr(lm, "thinking", 0)

    @property
    def context(self) -> int:
        """The model's."""
        return self.lm.context

    @property
    def identity(self) -> str:
        """The model's: who is asked does not decide what is answered."""
        return self.lm.identity

    def count(self, chat: Chat) -> int:
        """The model's; counted here."""
        return self.lm.count(chat)

    def is_token(self, text: str, *, begin: str = "") -> bool:
        """The model's; looked up here."""
        return self.lm.is_token(text, begin=begin)

    def ready(self) -> None:
        """Start the workers, and have each load the model.

        :raises ModelError: As the model does, or if workers die again and again.
        """
        self._told([actor.ready.remote() for actor in self._actors])

    def complete(self, chats: Sequence[Chat], *, max_tokens: int) -> Sequence[Completion]:
        """One completion for each chat.

        :raises ModelError: As the model does, or if workers die again and again.
        """
        return self._dealt("complete", [chats], {"max_tokens": max_tokens})

    def arrange(self, chats: Sequence[Chat], form: Form) -> Sequence[Completion]:
        """The order that the model writes for each chat.

        :raises ModelError: As the model does, or if workers die again and again.
        """
        return self._dealt("arrange", [chats], {"form": form})

    def choose(self, chats: Sequence[Chat], choices: Sequence[str], *, begin: str = "") -> Sequence[Choice]:
        """How likely each choice is after each chat.

        :raises ModelError: As the model does, or if workers die again and again.
        """
        return self._dealt("choose", [chats], {"choices": choices, "begin": begin})

    def likelihood(self, chats: Sequence[Chat], replies: Sequence[str]) -> Sequence[Likelihood]:
        """How likely each reply is to its chat.

        :raises ModelError: As the model does, or if workers die again and again.
        """
        return self._dealt("likelihood", [chats, replies], {})

    def _dealt(self, what: str, lists: Sequence[Sequence[Any]], more: dict[str, Any]) -> list[Any]:
        """The model's method over ``lists`` of one length, each worker with its share of them."""
        n, total = self.workers, len(lists[0])
        shares = [[column[i::n] for column in lists] for i in range(min(n, total))]
        asked = [self._actors[i].ask.remote(what, share, more) for i, share in enumerate(shares)]
        answers: list[Any] = [None] * total
        for i, share in enumerate(self._told(asked)):
            answers[i::n] = share
        return answers

    def _told(self, asked: Sequence[Any]) -> list[Any]:
        """What workers answer."""
        errors = need("ray.exceptions", name="ray", extra="ray")
        try:
            told: list[Any] = need("ray", name="ray", extra="ray").get(asked)
        except errors.RayActorError as error:
            raise ModelError(
                f"a worker died, and so did those that took its place ({self.replacements}): {error}"
            ) from error
        for failure in told:
            if isinstance(failure, Failure):
                raise failure.error
        return told

    @cached_property
    def _actors(self) -> list[Any]:
        """Started once; Ray replaces one that dies, and asks it again what it was asked."""
        ray = connected(self.address)
        for kind, each in (("GPU", self.gpus), ("CPU", self.cpus)):
            if (wanted := self.workers * each) > (has := ray.cluster_resources().get(kind, 0)):
                raise ModelError(f"{self.workers} workers want {wanted:g} {kind}, and Ray has {has:g}")
        options = {"num_gpus": self.gpus, "num_cpus": self.cpus, "max_task_retries": self.replacements}
        worker = ray.remote(Worker).options(max_restarts=-1, **options)  # else it would wait for them for ever
        return [worker.remote(self._recipe) for _ in range(self.workers)]


class Worker:
    """Has one model, in a process of its own."""

    def __init__(self, recipe: bytes) -> None:
        self.lm = pickle.loads(recipe)

    def ready(self) -> Failure | None:
        """Load it."""
        return answered(lambda: prepare(self.lm))

    def ask(self, what: str, share: Sequence[Sequence[Any]], more: dict[str, Any]) -> list[Any] | Failure:
        """What a method of the model answers to a share of the chats."""
        return answered(lambda: list(getattr(self.lm, what)(*share, **more)))


def _unloaded(lm: LM) -> bytes:
    """The model as it was made: what it has loaded since, its cached properties, is loaded anew over there.

    :raises RecipeError: If it holds what belongs to this process, such as a connection.
    """
    fresh = copy(lm)
    for name in [*vars(fresh)]:
        if isinstance(getattr(type(lm), name, None), cached_property):
            delattr(fresh, name)
    try:
        return pickle.dumps(fresh)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise RecipeError(
            [f"lm: {type(lm).__name__} cannot go to another process ({error}); name one that runs here: hf or vllm"]
        ) from error
