"""Rerank by a hosted reranker, which is sent the query and the passages and gives each a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from time import perf_counter
from typing import Any, Literal, NamedTuple

from rankpipe.data import Ranking
from rankpipe.errors import RecipeError
from rankpipe.lm.wire import Fault, Manners, Wire
from rankpipe.lm.words import words
from rankpipe.rerank.budget import Budget, Spent, spend
from rankpipe.rerank.fit import Fitted, Passage, most_pieces
from rankpipe.rerank.parse import Reply
from rankpipe.rerank.said import Said, ended, settle
from rankpipe.rerank.scores import rescored
from rankpipe.rerank.tei import Limit
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
    billed: Sequence[str] = ()  # where it says how much there is to pay for: tokens or searches
    per: int = 1_000_000  # for how many of these the price is
    limited: bool = False  # whether passages are cut to what the model reads, and the server can be asked about it
    model: bool = True  # whether a request names the model
    also: Mapping[str, Any] = field(default_factory=dict)  # further fields


class Asked(NamedTuple):
    """One request: some passages of one query."""

    q: int  # which query of the batch
    places: list[int]  # which of its hits
    texts: list[str]
    prompt: Fitted  # the same, for the ledger


class Told(NamedTuple):
    """What a server said to one request."""

    scores: dict[int, float]  # of those passages that it rated, by their place in the request
    repeated: int  # results for a passage that had one already
    tokens: int
    billed: float
    cut: frozenset[int] = frozenset()  # which passages the server shortened


@dataclass(frozen=True, slots=True)
class Totals:
    """What a server has been asked since the reranker was made."""

    answers: int = 0
    requests: int = 0  # of every kind, failed ones too
    tokens_in: int = 0
    billed: float = 0.0  # tokens or searches
    cost: float = 0.0  # in what the price was given in


class Api(Reranker):
    """Sends each query with its first ``depth`` passages to a server, and sorts them by the scores it gives.

    Scores are the server's; whether they compare across queries is for its model to say. Passages that were shortened
    are counted (``Step.cut``), by text-embeddings-inference too; no other server says whether it shortened one, as
    Cohere's does beyond 4,096 tokens. A passage without a score stays below in its old order and counts as repaired:
    one that the server left out, one without text, which is not sent since servers refuse it, and every one if the
    query has no text. Of two scores for one passage the first counts, and that is counted too. A reply that is anything
    else is asked for again, and an error after ``manners.tries``. Hits after ``depth``, and those that the budget did
    not allow, come last; scores fall on from the last one's by 1 a rank.

    :param dialect: which API the server has; a server of your own that follows Cohere's is "cohere" with a ``url``.
        "tei-raw" are tei's scores before the sigmoid, which may be equal after it.
    :param model: as the server calls it; none for tei, which has one.
    :param url: what comes before ``/rerank``; the dialect's own server if None.
    :param key: the name of the environment variable with the API key. If None, the dialect's for its own server, and
        none for another ``url``.
    :param depth: hits of a ranking that are sent.
    :param max_words: of each passage.
    :param manners: requests at once, timeouts, retries.
    :param price: as the provider lists it, of a million tokens (jina, voyage) or of a thousand searches (cohere).
    :param budget: the most that one query may cost, a request being a call; its tokens a server tells too late.
    :raises RecipeError: If the model is missing, a number below 1, or there is a budget of tokens.
    """

    batch = 8
    tells = True
    counts = "requests"

    def __init__(
        self,
        dialect: Literal["cohere", "jina", "voyage", "tei", "tei-raw"],
        model: str = "",
        url: str | None = None,
        key: str | None = None,
        depth: int = 100,
        max_words: int = 2000,
        manners: Manners = Manners(),  # noqa: B008  frozen
        price: float = 0.0,
        budget: Budget = Budget(),  # noqa: B008  frozen
    ) -> None:
        known = dialects()
        bad = [f"{k}: {n}; expected 1 or more" for k, n in (("depth", depth), ("max_words", max_words)) if n < 1]
        if dialect not in known:
            raise RecipeError([*bad, f"dialect: {dialect!r} is not one of {', '.join(known)}"])
        self.dialect = known[dialect]
        if self.dialect.model and not model:
            bad.append(f"model: a server of {dialect} has several; say which")
        if price < 0 or (price and not self.dialect.billed):
            bad.append(f"price: {price}; expected 0 or more, and 0 for a server that bills nothing")
        if budget.tokens is not None:
            bad.append("budget.tokens: a server tells them when they are spent; limit calls or seconds")
        if bad:
            raise RecipeError(bad)
        self.model, self.depth, self.max_words, self.price, self.budget = model, depth, max_words, price, budget
        own = self.dialect.key if url is None else None
        self.wire = Wire(self.dialect.url if url is None else url, own if key is None else key, manners)
        self.limit = Limit(self.wire, self.dialect.at_once) if self.dialect.limited else None
        self._lock, self._spent = Lock(), (0, 0, 0.0)  # answers, tokens, billed

    @property
    def totals(self) -> Totals:
        """What was asked and paid so far."""
        answers, tokens, billed = self._spent
        return Totals(answers, self.wire.requests, tokens, billed, billed * self.price / self.dialect.per)

    def work(self, ranking: Ranking) -> int:
        """The requests that its hits take."""
        return self.budget.most(-(-min(len(ranking.hits), self.depth) // self.dialect.at_once))

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        """Send all requests of the batch, as many at once as ``manners`` allow.

        :raises ModelError: If a request is refused, or fails too often.
        """
        spent = [Spent() for _ in batch]
        scores: list[list[float | None]] = [[None] * len(r.hits) for r in batch]

        def ask(asked: list[Asked]) -> None:
            start = perf_counter()
            told = self._told([(whole(batch[one.q].query.text), one.texts) for one in asked])
            share_s = (perf_counter() - start) / len(asked)
            for one, answer in zip(asked, told, strict=True):
                for place, score in answer.scores.items():
                    scores[one.q][one.places[place]] = score
                said = _said(len(one.places), answer)
                mended = said.reply.missing + said.reply.repeated
                settle(batch[one.q], one.places, one.prompt, said, spent[one.q], share_s, mended)
                spent[one.q].cut.update(one.places[i] for i in answer.cut)

        requests = [self._asked(q, ranking) for q, ranking in enumerate(batch)]
        for ranking, cost, asked in zip(batch, spent, requests, strict=True):
            cost.repaired = len(ranking.hits[: self.depth]) - sum(len(one.places) for one in asked)  # without text
        spend(self.budget, spent, requests, lambda _, one: (one, 0), ask, at_once=1)
        ended(batch, spent)
        judge = self.model or self.wire.url
        return [
            rescored(r, rated, judge).noting(cost.step(self.name))
            for r, rated, cost in zip(batch, scores, spent, strict=True)
        ]

    def _told(self, asked: Sequence[tuple[str, list[str]]]) -> list[Told]:
        """What the server says to each query and its passages."""

        def ask(i: int, stop: Event) -> Told:
            query, texts = asked[i]
            told = self.wire.ask("rerank", self._body(query, texts), lambda body: self._read(body, len(texts)), stop)
            self._pay(told)
            return told._replace(cut=self.limit.cut(query, texts, stop)) if self.limit else told

        answers = self.wire.together(len(asked), ask, self.model or self.wire.url)
        return [answer or Told({}, 0, 0, 0.0) for answer in answers]

    def _asked(self, q: int, ranking: Ranking) -> list[Asked]:
        if not ranking.query.text.strip():
            return []
        texts = [h.doc.contents for h in ranking.hits[: self.depth]]
        sent = [i for i, text in enumerate(texts) if text.strip()]
        n = self.dialect.at_once
        return [self._request(q, ranking, sent[i : i + n]) for i in range(0, len(sent), n)]

    def _request(self, q: int, ranking: Ranking, places: list[int]) -> Asked:
        passages = [Passage(ranking.hits[i].doc.contents, self.max_words) for i in places]
        texts = [whole(p.first()) for p in passages]
        chat = [{"role": "query", "content": whole(ranking.query.text)}]
        chat += [{"role": f"passage {i}", "content": text} for i, text in enumerate(texts, 1)]
        whole_of = most_pieces(passages, self.max_words)
        return Asked(q, places, texts, Fitted.of(passages, whole_of, self.max_words, chat=chat, tokens=0, max_tokens=0))

    def _body(self, query: str, texts: list[str]) -> dict[str, Any]:
        model = {"model": self.model} if self.dialect.model else {}
        most = {self.dialect.most: len(texts)} if self.dialect.most else {}
        return {**model, "query": query, self.dialect.texts: texts, **most, **self.dialect.also}

    def _read(self, told: Any, n: int) -> Told:
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
        except (KeyError, TypeError, AttributeError):
            raise Fault(f"no results with index and {self.dialect.score}, but {words(told)}") from None
        return Told(scores, repeated, int(_number(told, self.dialect.tokens)), _number(told, self.dialect.billed))

    def _pay(self, told: Told) -> None:
        with self._lock:
            answers, tokens, billed = self._spent
            self._spent = (answers + 1, tokens + told.tokens, billed + told.billed)


def dialects() -> dict[str, Dialect]:
    """The table, by name."""
    import yaml

    return {name: Dialect(**facts) for name, facts in yaml.safe_load(TABLE.read_text("utf-8")).items()}


def _said(n: int, told: Told) -> Said:
    """The passages by falling score, as the ledger has them; those without one last."""
    best = sorted(told.scores, key=lambda i: -told.scores[i])
    rest = [i for i in range(n) if i not in told.scores]
    text = " > ".join(f"[{i + 1}] {told.scores[i]:.6g}" for i in best)
    return Said(Reply((*best, *rest), len(rest), told.repeated), text, told.tokens, 0)


def _is_number(told: Any) -> bool:
    return isinstance(told, int | float) and not isinstance(told, bool) and abs(told) < MOST


def _number(told: Any, path: Sequence[str]) -> float:
    """What a reply says at the end of the path; 0 where it does not say it."""
    for name in path:
        told = told.get(name) if isinstance(told, dict) else None
    return float(told) if _is_number(told) and told >= 0 else 0.0


def whole(text: str) -> str:
    """A text that any server can read: half characters (lone surrogates) become ``?``."""
    return text.encode("utf-8", "replace").decode("utf-8")
