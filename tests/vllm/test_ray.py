"""Dealt out to processes, a model answers as it does in one: in order, with its own errors, and though workers die."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import ray

from rankpipe import recipe
from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.errors import ModelError, RecipeError
from rankpipe.lm import Chat, Completion
from rankpipe.lm.cache import Cached
from rankpipe.lm.fake import Noisy
from rankpipe.lm.hf import HF
from rankpipe.lm.orders import Form
from rankpipe.lm.ray import Ray
from rankpipe.rerank.listwise import Listwise


class Mortal(Noisy):
    """Its process ends when it is asked, as long as there is a file in ``folder``; each end uses one up."""

    def __init__(self, folder: Path) -> None:
        super().__init__(0.1)
        self.folder = folder

    def complete(self, chats: Sequence[Chat], *, max_tokens: int) -> Sequence[Completion]:
        for omen in self.folder.iterdir():
            try:
                omen.unlink()
            except FileNotFoundError:
                continue  # another worker's
            os.kill(os.getpid(), signal.SIGKILL)
        return super().complete(chats, max_tokens=max_tokens)


class Loaded(Noisy):
    """Notes which processes it was loaded in; cannot be in a folder that is not there."""

    thinking = 5

    def __init__(self, folder: Path) -> None:
        super().__init__(0.1)
        self.folder = folder

    def ready(self) -> None:
        if not self.folder.exists():
            raise ModelError(f"{self.folder}: no such folder")
        (self.folder / str(os.getpid())).touch()


@pytest.fixture(scope="module", autouse=True)
def _over() -> Iterator[None]:
    yield
    ray.shutdown()


def chats(n: int) -> list[Chat]:
    text = "query: cats {}\n[1] cats sleep {}\n[2] dogs bark\n[3] tea is hot"
    return [[{"role": "user", "content": text.format(i, i)}] for i in range(n)]


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_answers_are_the_models_own_in_order(n: int) -> None:
    lm = Noisy(noise=1.0, malformed=0.3)
    spread = Ray(lm, workers=3)
    assert spread.complete(chats(n), max_tokens=50) == lm.complete(chats(n), max_tokens=50)
    assert spread.choose(chats(n), ["1", "2", "3"]) == lm.choose(chats(n), ["1", "2", "3"])
    assert (spread.together, spread.at_once) == (3, 96)
    replies = [f"cats {i} dogs" for i in range(n)]
    assert spread.likelihood(chats(n), replies) == lm.likelihood(chats(n), replies)
    assert (spread.context, spread.identity, spread.is_token("[")) == (lm.context, lm.identity, True)
    assert [spread.count(c) for c in chats(n)] == [lm.count(c) for c in chats(n)]


def test_each_worker_loads_the_model(tmp_path: Path) -> None:
    spread = Ray(Loaded(tmp_path), workers=2)
    spread.ready()
    assert len({*tmp_path.iterdir()} - {tmp_path / str(os.getpid())}) == 2
    assert spread.thinking == 5
    with pytest.raises(ModelError, match="none: no such folder"):
        Ray(Loaded(tmp_path / "none"), workers=1).ready()
    Ray(Noisy(), workers=1).ready()  # which has nothing to load


def test_it_reranks(tmp_path: Path) -> None:
    """In a pipeline, from a recipe, behind a cache."""
    node = {"use": "listwise", "lm": {"use": "ray", "workers": 2, "lm": {"use": "fake", "malformed": 0.2}}}
    assert recipe.check(node) == []
    texts = ["cats sleep", "dogs bark", "a cat and a dog", "tea"]
    given = [Ranking.scored(Query(str(i), "cats"), [Hit(Doc(t, t), 0.0) for t in texts]) for i in range(5)]
    plain = Listwise(Noisy(malformed=0.2)).run(given)
    orders = [[hit.doc.id for hit in r.hits] for r in plain]
    made = recipe.build(node, tmp_path).run(given)
    assert [[hit.doc.id for hit in r.hits] for r in made] == orders
    cached = Cached(Ray(Noisy(malformed=0.2)), tmp_path / "answers.sqlite")
    assert [[hit.doc.id for hit in r.hits] for r in Listwise(cached).run(given)] == orders


def test_errors_are_the_models_own(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError, match=r"^\d+ tokens and a reply of 9 do not fit into 5$"):
        Ray(Noisy(context=5)).complete(chats(4), max_tokens=9)
    assert capfd.readouterr() == ("", "")


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    spread = Ray(Mortal(tmp_path), workers=2)
    for omen in ("a", "b"):
        (tmp_path / omen).touch()
    assert spread.complete(chats(6), max_tokens=50) == Noisy(0.1).complete(chats(6), max_tokens=50)
    assert not [*tmp_path.iterdir()], "two did die"
    (tmp_path / "c").touch()
    assert spread.complete(chats(6), max_tokens=50) == Noisy(0.1).complete(chats(6), max_tokens=50)


def test_but_not_for_ever(tmp_path: Path) -> None:
    for omen in "abcde":
        (tmp_path / omen).touch()
    with pytest.raises(ModelError, match=r"a worker died, and so did those that took its place \(1\)"):
        Ray(Mortal(tmp_path), workers=1, replacements=1).complete(chats(3), max_tokens=50)


def test_what_cannot_be_spread(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Cached cannot go to another process"):
        Ray(Cached(Noisy(), tmp_path / "answers.sqlite"))
    with pytest.raises(RecipeError, match="workers=0"):
        Ray(Noisy(), workers=0)
    with pytest.raises(ModelError, match="2 workers want 2000 GPU, and Ray has 0"):
        Ray(Noisy(), gpus=1000).complete(chats(1), max_tokens=9)


def test_smollm2_in_two_processes(hf: HF) -> None:
    """What is loaded here is not sent: the model has been used before."""
    asked: list[Chat] = [
        [{"role": "user", "content": f"What is the capital of {c}?"}] for c in ("France", "Japan", "Peru")
    ]
    alone = hf.complete(asked, max_tokens=12)
    spread = Ray(hf, workers=2)
    assert len(spread._recipe) < 10_000
    assert spread.complete(asked, max_tokens=12) == alone
    form = Form(("[A]", "[B]", "[C]"))
    assert spread.arrange(asked, form) == hf.arrange(asked, form)
    for ours, theirs in zip(
        hf.choose(asked, ["A", "B"], begin="["), spread.choose(asked, ["A", "B"], begin="["), strict=True
    ):
        assert theirs.logprobs == pytest.approx(ours.logprobs, abs=1e-3)
