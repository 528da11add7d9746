"""Rerank by a hosted reranker, which is sent the query and the passages and gives each a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from threading import Event
from typing import Any, Literal, NamedTuple

from rankpipe.data import Ranking, Step
from rankpipe.errors import RecipeError
from rankpipe.lm.wire import Fault, Manners, Wire, words
from rankpipe.rerank.fit import Passage
from rankpipe.rerank.scores import rescored
from rankpipe.stage import Reranker

TABLE = Path(__file__).parent / "dialects.yaml"
MOST = 1e300  # a score beyond is a mishap; infinity and JSON's NaN are too


@dataclass(frozen=True)
class Dialect:
    """How a kind of server is asked, and what it says: a line of ``dialects.yaml``."""

    about: str
    url: str
    texts: str  # the field of a request that has the passages
    score: str  # the field of a result that has its score
    at_once: int  # passages a request may have
    key: str | None = None  # the environment variable with the API key
    most: str = ""  # the field that says how many results are wanted; "" if all come
    results: str = ""  # the field of a reply that has them; "" if the reply is their list
    tokens: Sequence[str] = ()  # where a reply says how many were read
    model: bool = True  # whether a request names the model
    also: Mapping[str, Any] = field(default_factory=dict)  # further fields


class Asked(NamedTuple):
    """One request: some passages of one query."""

    q: int  # which query of the batch
    places: list[int]  # which of its hits
    texts: list[str]
    cut: int  # of them that were shortened


class Said(NamedTuple):
    """What a server said to one request."""

    scores: dict[int, float]  # of those passages that it rated, by their place in the request
    repeated: int  # results for a passage that had one already
    tokens: int


class Api(Reranker):
    """Sends each query with its first ``depth`` passages to a server, and sorts them by the scores it gives.

    Scores are the server's; whether they compare across queries is for its model to say. Passages that were shortened
    are counted (``Step.cut``). A passage without a score stays below in its old order and counts as repaired: one that
    the server left out, one without text, which is not sent since servers refuse it, and every one if the query has no
    text. Of two scores for one passage the first counts, and that is counted too. A reply that is anything else is
    asked for again, and an error after ``manners.tries``. Hits after ``depth`` come last; scores fall on from the last
    one's by 1 a rank.

    :param dialect: which API the server has; a server of your own that follows Cohere's is "cohere" with a ``url``.
    :param model: as the server calls it; none for tei, which has one.
    :param url: what comes before ``/rerank``; the dialect's own server if None.
    :param key: the name of the environment variable with the API key. If None, the dialect's for its own server, and
        none for another ``url``.
    :param depth: hits of a ranking that are sent.
    :param max_words: of each passage.
    :param manners: requests at once, timeouts, retries.
    :raises RecipeError: If the model is missing, or a number below 1.
    """

    batch = 8

    def __init__(
        self,
        dialect: Literal["cohere", "jina", "voyage", "tei"],
        model: str = "",
        url: str | None = None,
        key: str | None = None,
        depth: int = 100,
        max_words: int = 2000,
        manners: Manners = Manners(),  # noqa: B008  frozen
    ) -> None:
        known = dialects()
        bad = [f"{k}: {n}; expected 1 or more" for k, n in (("depth", depth), ("max_words", max_words)) if n < 1]
        if dialect not in known:
            raise RecipeError([*bad, f"dialect: {dialect!r} is not one of {', '.join(known)}"])
        self.dialect = known[dialect]
        if self.dialect.model and not model:
            bad.append(f"model: a server of {dialect} has several; say which")
        if bad:
            raise RecipeError(bad)
        self.model, self.depth, self.max_words = model, depth, max_words
        own = self.dialect.key if url is None else None
        self.wire = Wire(self.dialect.url if url is None else url, own if key is None else key, manners)

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        """Send all requests of the batch, as many at once as ``manners`` allow.

        :raises ModelError: If a request is refused, or fails too often.
        """
        asked = [one for q, ranking in enumerate(batch) for one in self._asked(q, ranking)]

        def ask(i: int, stop: Event) -> Said:
            body = self._body(batch[asked[i].q].query.text, asked[i].texts)
            return self.wire.ask("rerank", body, lambda told: self._read(told, len(asked[i].texts)), stop)

        said = self.wire.together(len(asked), ask, self.model or self.wire.url)
        answers: list[list[tuple[Asked, Said]]] = [[] for _ in batch]
        for one, answer in zip(asked, said, strict=True):
            answers[one.q].append((one, answer))
        return [self._ranking(*one) for one in zip(batch, answers, strict=True)]

    def _asked(self, q: int, ranking: Ranking) -> list[Asked]:
        if not ranking.query.text.strip():
            return []
        texts = [h.doc.contents for h in ranking.hits[: self.depth]]
        sent = [i for i, text in enumerate(texts) if text.strip()]
        n, asked = self.dialect.at_once, []
        for places in (sent[i : i + n] for i in range(0, len(sent), n)):
            passages = [Passage(texts[i], self.max_words) for i in places]
            cut = sum(len(p.ends) > self.max_words for p in passages)
            asked.append(Asked(q, places, [whole(p.first(self.max_words)) for p in passages], cut))
        return asked

    def _body(self, query: str, texts: list[str]) -> dict[str, Any]:
        model = {"model": self.model} if self.dialect.model else {}
        most = {self.dialect.most: len(texts)} if self.dialect.most else {}
        return {**model, "query": whole(query), self.dialect.texts: texts, **most, **self.dialect.also}

    def _read(self, told: Any, n: int) -> Said:
        """What a reply to ``n`` passages says.

        :raises Fault: If it is not of the dialect.
        """
        scores: dict[int, float] = {}
        repeated = 0
        try:
            for result in told[self.dialect.results] if self.dialect.results else told:
                place, score = result["index"], result[self.dialect.score]
                if type(place) is not int or not 0 <= place < n or not _is_number(score):
                    raise Fault(f"a result that cannot be, for {n} passages: {words(result)}")
                repeated += place in scores
                scores.setdefault(place, float(score))
            tokens = reduce(lambda node, name: node.get(name) or {}, self.dialect.tokens, told)
        except (KeyError, TypeError, AttributeError):
            raise Fault(f"no results with index and {self.dialect.score}, but {words(told)}") from None
        return Said(scores, repeated, tokens if isinstance(tokens, int) else 0)

    def _ranking(self, ranking: Ranking, answers: Sequence[tuple[Asked, Said]]) -> Ranking:
        scores: list[float | None] = [None] * len(ranking.hits[: self.depth])
        for one, said in answers:
            for place, score in said.scores.items():
                scores[one.places[place]] = score
        cost = Step(
            self.name,
            calls=len(answers),
            tokens_in=sum(said.tokens for _, said in answers),
            repaired=scores.count(None) + sum(said.repeated for _, said in answers),
            cut=sum(one.cut for one, _ in answers),
        )
        return rescored(ranking, scores, self.model or self.wire.url).noting(cost)


def dialects() -> dict[str, Dialect]:
    """The table, by name."""
    import yaml

    return {name: Dialect(**facts) for name, facts in yaml.safe_load(TABLE.read_text("utf-8")).items()}


def _is_number(told: Any) -> bool:
    return isinstance(told, int | float) and not isinstance(told, bool) and abs(told) < MOST


def whole(text: str) -> str:
    """A text that any server can read: half characters (lone surrogates) become ``?``."""
    return text.encode("utf-8", "replace").decode("utf-8")
