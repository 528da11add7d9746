"""Hosted rerankers, each by its dialect, from a server on loopback that misbehaves as told."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from rankpipe import recipe
from rankpipe.data import Doc, Hit, Query, Ranking, Step
from rankpipe.errors import ModelError, RecipeError
from rankpipe.lm.wire import Manners
from rankpipe.rerank import ledger
from rankpipe.rerank.api import Api, Totals, dialects
from rankpipe.rerank.budget import Budget
from tests.lm.server import Act, Server, break_off, reset, say, serving

SECRET = "sk-not-for-anybody-0123456789"
PATH = "/v1/rerank"
NAMES = ("cohere", "jina", "voyage", "tei", "tei-raw")


def quick(naps: list[float] | None = None, **options: Any) -> Manners:
    """Waits no real time, and notes how long it would have."""
    waits = [] if naps is None else naps
    return Manners(sleep=lambda _, s: waits.append(s), chance=lambda: 0.0, **{"whole_s": 20, "tries": 3, **options})


def api(server: Server, dialect: Any = "cohere", **options: Any) -> Api:
    model = "some-model" if dialects()[dialect].model else ""
    return Api(dialect, **{"model": model, "url": server.url, "manners": quick(), **options})


def ranking(*texts: str, question: str = "which pet", of: str = "1") -> Ranking:
    hits = (Hit(Doc(f"d{i}", text), -float(i)) for i, text in enumerate(texts))
    return Ranking(Query(of, question), tuple(hits))


def reply(dialect: str, scores: Sequence[tuple[Any, Any]]) -> Any:
    """As the dialect's own documentation shows one."""
    if not dialects()[dialect].results:
        return [{"index": i, "score": s} for i, s in scores]
    rows = [{"index": i, "relevance_score": s} for i, s in scores]
    return {
        "cohere": {"id": "x", "results": rows, "meta": {"billed_units": {"search_units": 1}}},
        "jina": {"model": "m", "results": rows, "usage": {"total_tokens": 42}},
        "voyage": {"object": "list", "data": rows, "model": "m", "usage": {"total_tokens": 42}},
    }[dialect]


def graded(dialect: str) -> Act:
    """The score of a text is the number it begins with; best first, as servers do."""
    field = dialects()[dialect].texts

    def act(handler: Any, body: Any) -> None:
        scores = sorted(((i, float(t.split()[0])) for i, t in enumerate(body[field])), key=lambda x: -x[1])
        say(reply(dialect, scores))(handler, body)

    return act


def ids(made: Ranking) -> list[str]:
    return [h.doc.id for h in made.hits]


def scores(made: Ranking) -> list[float]:
    return [h.score for h in made.hits]


def told(made: Ranking) -> Step:
    [step] = made.steps
    return step


def test_the_table_and_the_recipe_know_the_same() -> None:
    assert tuple(dialects()) == NAMES
    [fault] = recipe.check({"use": "rankpipe.rerank.api:Api", "dialect": "coheer"})
    assert "'coheer' is not one of cohere, jina, voyage, tei, tei-raw" in fault


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        ("cohere", {"model": "some-model", "query": "which pet", "documents": ["0.2", "0.9"], "top_n": 2}),
        (
            "jina",
            {
                "model": "some-model",
                "query": "which pet",
                "documents": ["0.2", "0.9"],
                "top_n": 2,
                "return_documents": False,
            },
        ),
        ("voyage", {"model": "some-model", "query": "which pet", "documents": ["0.2", "0.9"], "top_k": 2}),
        ("tei", {"query": "which pet", "texts": ["0.2", "0.9"], "truncate": True}),
        ("tei-raw", {"query": "which pet", "texts": ["0.2", "0.9"], "truncate": True, "raw_scores": True}),
    ],
)
def test_what_is_sent_and_what_comes_of_it(dialect: str, body: Any) -> None:
    with serving(rerank=[graded(dialect)]) as server:
        [made] = api(server, dialect).apply([ranking("0.2", "0.9")])
    assert server.bodies(PATH) == [body]
    assert "Authorization" not in server.asked[0][2]
    assert (ids(made), scores(made)) == (["d1", "d0"], [0.9, 0.2])
    assert told(made).tokens_in == (42 if dialect in ("jina", "voyage") else 0)
    assert (told(made).stage, told(made).calls, told(made).repaired, told(made).cut) == ("Api", 1, 0, 0)


@pytest.mark.parametrize("dialect", NAMES)
@pytest.mark.parametrize(
    "mishap",
    [
        say({"error": {"message": "slow down"}}, 429, Retry_After="7"),
        say({"message": "oops"}, 500),
        say(b"<html>", 502),
        say(b'{"results": [{'),
        say({"results": None, "data": 3}),
        say(["what?"]),
        say("text"),
        reset,
        break_off,
    ],
)
def test_mishaps_are_asked_again(dialect: str, mishap: Act) -> None:
    with serving(rerank=[mishap, graded(dialect)]) as server:
        [made] = api(server, dialect).apply([ranking("0.2", "0.9")])
        assert ids(made) == ["d1", "d0"]
        assert len(server.bodies(PATH)) == 2


def test_a_server_may_say_when_to_come_back() -> None:
    naps: list[float] = []
    with serving(rerank=[say({}, 429, Retry_After="7"), graded("cohere")]) as server:
        api(server, manners=quick(naps)).apply([ranking("0.2")])
    assert naps == [7]


@pytest.mark.parametrize("dialect", NAMES)
@pytest.mark.parametrize(
    "wrong",
    [(2, 0.5), (-1, 0.5), ("0", 0.5), (True, 0.5), (0, "high"), (0, None), (0, True), (0, float("nan")), (0, 10**400)],
)
def test_a_result_that_cannot_be_is_an_error_in_the_end(dialect: str, wrong: tuple[Any, Any]) -> None:
    with (
        serving(rerank=[say(reply(dialect, [(1, 0.5), wrong]))]) as server,
        pytest.raises(ModelError, match=r"a result that cannot be, for 2 passages: .*\(tried 3 times\)"),
    ):
        api(server, dialect).apply([ranking("a", "b")])


@pytest.mark.parametrize("dialect", NAMES)
def test_a_field_that_is_missing(dialect: str) -> None:
    table = dialects()[dialect]
    rows = [{"index": 0, "points": 1}]
    content = {table.results: rows} if table.results else rows
    with (
        serving(rerank=[say(content)]) as server,
        pytest.raises(ModelError, match=f"no results with index and {table.score}, but .*points"),
    ):
        api(server, dialect).apply([ranking("a")])


@pytest.mark.parametrize("dialect", NAMES)
def test_passages_left_out_or_rated_twice_are_mended_and_counted(dialect: str) -> None:
    with serving(rerank=[say(reply(dialect, [(2, 0.5), (2, 0.1), (0, 0.4)]))]) as server:
        [made] = api(server, dialect, depth=4).apply([ranking("a", "b", "c", "d", "e")])
    assert ids(made) == ["d2", "d0", "d1", "d3", "d4"]
    assert scores(made) == pytest.approx([0.5, 0.4, -0.6, -1.6, -2.6])
    assert told(made).repaired == 3
    with serving(rerank=[say(reply(dialect, []))]) as server:
        [made] = api(server, dialect).apply([ranking("a", "b")])
    assert (ids(made), told(made).repaired) == (["d0", "d1"], 2)


def test_refused_at_once_with_the_servers_words() -> None:
    with serving(rerank=[say({"message": "query is too long: 9001 tokens, at most 4096"}, 400)]) as server:
        with pytest.raises(ModelError, match="400 Bad Request: query is too long: 9001 tokens, at most 4096"):
            api(server).apply([ranking("a", question="long " * 9000)])
        assert len(server.asked) == 1


def test_what_has_no_text_is_not_sent() -> None:
    with serving(rerank=[graded("cohere")]) as server:
        made = api(server).apply([ranking("", "0.5", " \n", "0.7"), ranking("0.1", question=" ", of="2"), ranking()])
    assert [body["documents"] for body in server.bodies(PATH)] == [["0.5", "0.7"]]
    assert [ids(r) for r in made] == [["d3", "d1", "d0", "d2"], ["d0"], []]
    assert [(told(r).calls, told(r).repaired) for r in made] == [(1, 2), (0, 1), (0, 0)]


def test_long_passages_are_cut_and_half_letters_mended() -> None:
    with serving(rerank=[graded("cohere")]) as server:
        [made] = api(server, max_words=3).apply([ranking("0.1 b c d", "0.2 b c", "0.3 \ud800", question="\udfff")])
    [body] = server.bodies(PATH)
    assert (body["documents"], body["query"]) == (["0.1 b c", "0.2 b c", "0.3 ?"], "?")
    assert told(made).cut == 1
    with serving(rerank=[graded("cohere")]) as server:
        [made] = api(server).apply([ranking("0.1 " + "字" * 1_000_000)])
    assert len(server.bodies(PATH)[0]["documents"][0]) < 2000 * 40 + 1


def test_many_passages_are_several_requests() -> None:
    texts = [str(i) for i in range(70)]
    with serving(rerank=[graded("tei")]) as server:
        [made] = api(server, "tei").apply([ranking(*texts)])
    assert sorted(len(body["texts"]) for body in server.bodies(PATH)) == [6, 32, 32]
    assert ids(made) == [f"d{i}" for i in range(69, -1, -1)]
    assert (told(made).calls, told(made).repaired) == (3, 0)


def words_of(handler: Any, body: Any) -> None:
    """A tokenizer of words, with two marks around each text."""
    say([[{"id": 0, "text": word, "special": False} for word in f"[ {t} ]".split()] for t in body["inputs"]])(
        handler, body
    )


def test_what_the_server_cuts_is_counted_where_it_tells() -> None:
    """Of 20 tokens the query has 4 and a passage of n words n + 2; one that is cut here and there counts once."""
    texts = ["1" + " word" * n for n in (0, 1, 13, 14, 50)]
    limit = say({"model_id": "m", "max_input_length": 20})
    with serving(rerank=[graded("tei")], info=[limit], sizes=[words_of]) as server:
        [made] = api(server, "tei", max_words=40).apply([ranking(*texts)])
        asked = server.bodies("/v1/tokenize")
        assert told(made).cut == 2
    assert [[len(t.split()) for t in body["inputs"]] for body in asked] == [[2, 14, 15, 40]]  # the others' bytes fit
    with serving(rerank=[graded("tei")], info=[say({"max_input_length": 512})]) as server:
        [made] = api(server, "tei", max_words=40).apply([ranking(*texts)])
        assert (told(made).cut, server.bodies("/v1/tokenize")) == (1, [])
    with serving(rerank=[graded("tei")]) as server:  # something stands in front of it
        [made] = api(server, "tei", max_words=40).apply([ranking(*texts)])
        assert told(made).cut == 1


def test_many_long_passages_are_counted_as_many_as_may_be_asked_at_once() -> None:
    texts = [f"1 {'word ' * (4 + i % 2)}" for i in range(40)]
    limit = say({"max_input_length": 11})
    with serving(rerank=[graded("tei")], info=[limit], sizes=[words_of]) as server:
        [made] = api(server, "tei").apply([ranking(*texts)])
    assert max(len(body["inputs"]) for body in server.bodies("/v1/tokenize")) <= 32
    assert told(made).cut == 20


@pytest.mark.parametrize(
    ("info", "sizes", "said"),
    [
        (say({}), [], "no max_input_length, but {}"),
        (say({"max_input_length": 1}), [say(3)], "no tokens, but 3"),
        (say({"max_input_length": 1}), [say({"error": "busy"}, 503)], "503 .*busy"),
    ],
)
def test_a_server_that_tells_badly(info: Act, sizes: list[Act], said: str) -> None:
    with (
        serving(rerank=[graded("tei")], info=[info], sizes=sizes) as server,
        pytest.raises(ModelError, match=rf"{said} \(tried 3 times\)"),
    ):
        api(server, "tei").apply([ranking("1")])


@pytest.mark.parametrize(
    ("dialect", "billed", "cost"), [("cohere", 3, 3 * 2.0 / 1e3), ("jina", 3 * 42, 3 * 42 * 2.0 / 1e6)]
)
def test_what_it_costs(dialect: str, billed: float, cost: float) -> None:
    with serving(rerank=[say({}, 500), graded(dialect)]) as server:
        stage = api(server, dialect, price=2.0)
        stage.apply([ranking("0.1", of="1"), ranking("0.2", of="2"), ranking("0.3", of="3"), ranking(of="4")])
    tokens = 3 * 42 if dialect == "jina" else 0
    assert stage.totals == Totals(answers=3, requests=4, tokens_in=tokens, billed=billed, cost=pytest.approx(cost))


def test_companions_change_nothing() -> None:
    asked = [ranking("0.1", "0.9", of="1"), ranking("0.5", of="2"), ranking("0.3", "0.4", of="3")]
    with serving(rerank=[graded("voyage")]) as server:
        stage = api(server, "voyage")
        together = [scores(r) for r in stage.apply(asked)]
        assert together == [scores(stage.apply([one])[0]) for one in asked] == [[0.9, 0.1], [0.5], [0.4, 0.3]]


def test_ties_fall_as_trec_eval_breaks_them() -> None:
    with serving(rerank=[graded("jina")]) as server:
        [made] = api(server, "jina").apply([ranking("0.5", "0.5", "0.7")])
    assert ids(made) == ["d2", "d1", "d0"]


@pytest.mark.parametrize(
    "act",
    [
        lambda: say({"message": f"wrong key {SECRET}"}, 401),
        lambda: say({"message": f"busy, {SECRET}"}, 429),
        lambda: say(f"no JSON {SECRET}".encode()),
        lambda: say({"results": [{"index": 7, "relevance_score": SECRET}]}),
    ],
)
def test_the_key_is_sent_and_never_shown(act: Callable[[], Act], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    with serving(rerank=[act()]) as server:
        stage = api(server, key="MY_KEY")
        with pytest.raises(ModelError) as caught:
            stage.apply([ranking("a")])
        assert server.asked[0][2]["Authorization"] == f"Bearer {SECRET}"
    shown = "".join(traceback.format_exception(caught.value)) + repr(stage) + repr(vars(stage))
    assert SECRET not in shown
    assert "***" in str(caught.value)


def test_the_dialects_key_goes_to_its_own_server_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Api("voyage", "m").wire.url, Api("voyage", "m").wire.key) == (
        "https://api.voyageai.com/v1",
        "VOYAGE_API_KEY",
    )
    assert Api("voyage", "m", url="http://127.0.0.1:1").wire.key is None
    assert Api("tei").wire.key is None
    monkeypatch.delenv("COHERE_API_KEY", raising=False)
    with pytest.raises(ModelError, match="the environment variable COHERE_API_KEY is to hold the key"):
        Api("cohere", "m", manners=quick()).apply([ranking("a")])


def test_what_cannot_be_made() -> None:
    with pytest.raises(RecipeError, match=r"depth: 0.*\n.*max_words: -1.*\n.*model: a server of jina has several"):
        Api("jina", depth=0, max_words=-1)
    for dialect, price in (("jina", -1), ("tei", 1)):
        with pytest.raises(RecipeError, match=f"price: {price}; expected 0 or more, and 0 for a server that bills no"):
            Api(dialect, "m", price=price)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="'mine' is not one of cohere, jina, voyage, tei"):
        Api("mine")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="the name of an environment variable, not the key itself") as caught:
        Api("cohere", "m", key=SECRET)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("calls", [0, 1, 2, 3, 9])
def test_a_budget_of_requests(calls: int) -> None:
    """tei takes 32 passages a request; what is not sent stays below and is nothing that was mended."""
    given = [ranking(*map(str, range(69)), "", of="1"), ranking("0.1", "0.9", of="2")]
    ended: list[ledger.Ended] = []
    with serving(rerank=[graded("tei")]) as server, ledger.written(lambda _: None, ended.append):
        made, other = api(server, "tei", budget=Budget(calls=calls)).apply(given)
    n = min(calls, 3)
    assert [(e.query, e.skipped) for e in ended] == [("1", 3 - n)] * (n < 3) + [("2", 1)] * (n < 1)
    assert (told(made).calls, told(made).skipped, told(made).repaired) == (n, 3 - n, 1)
    rated = min(32 * n, 69)
    assert ids(made) == [f"d{i}" for i in [*range(rated - 1, -1, -1), *range(rated, 70)]]
    assert (told(other).calls, told(other).skipped) == (min(calls, 1), 1 - min(calls, 1))


def test_budgets_of_seconds_and_of_tokens() -> None:
    with serving(rerank=[graded("tei")]) as server:
        for seconds, calls in ((0, 0), (1e-9, 1), (1e9, 3)):
            [made] = api(server, "tei", budget=Budget(seconds=seconds)).apply([ranking(*map(str, range(70)))])
            assert (told(made).calls, told(made).skipped) == (calls, 3 - calls)
        with pytest.raises(RecipeError, match=r"budget\.tokens: a server tells them when they are spent"):
            api(server, "tei", budget=Budget(tokens=9))


def test_every_request_is_noted() -> None:
    noted: list[ledger.Entry] = []
    with serving(rerank=[say(reply("jina", [(2, 0.5), (2, 0.1), (0, 0.25)]))]) as server, ledger.written(noted.append):
        api(server, "jina", max_words=2).apply([ranking("", "a", "b c d e", "f")])
    [entry] = noted
    assert (entry.query, entry.docs, entry.order) == ("1", ("d1", "d2", "d3"), ("d3", "d1", "d2"))
    assert entry.messages == [
        {"role": "query", "content": "which pet"}, {"role": "passage 1", "content": "a"},
        {"role": "passage 2", "content": "b c"}, {"role": "passage 3", "content": "f"},
    ]  # fmt: skip
    assert (entry.reply, entry.kind, entry.missing, entry.repeated) == ("[3] 0.5 > [1] 0.25", "repetition", 1, 1)
    assert (entry.cut, entry.cut_words, entry.words, entry.tokens_in) == (1, 2, 2, 42)
