"""The cases of listwise-behaviour.md, row by row: test_cases.yaml. And replies that nobody foresaw."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from math import inf, log
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.errors import ModelError
from rankpipe.lm.fake import Oracle, Scripted
from rankpipe.rerank import t5
from rankpipe.rerank.first import First
from rankpipe.rerank.fit import Passage, fit
from rankpipe.rerank.listwise import Listwise
from rankpipe.rerank.parse import Labels, names, parse
from rankpipe.rerank.plans import Single, Sliding, Windows, drive
from rankpipe.rerank.pointwise import share, verdict
from rankpipe.rerank.prompts import named, ours, read
from rankpipe.trec import ordered, read_run, write_run

CASES: dict[str, list[dict[str, Any]]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
Row = dict[str, Any]


def rows(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", CASES[kind], ids=lambda row: row["source"])


def test_every_row_says_its_source_and_every_deviation_why() -> None:
    for row in (row for table in CASES.values() for row in table):
        assert re.match(r"2\.[1-8]\b|recorded on |rankpipe\b|\w+ et al\. 20\d\d\b", row["source"]), row
        assert "why" in row or "theirs" not in row, row
    numbered = {int(m[1]) for row in CASES["parse"] if (m := re.fullmatch(r"2\.5 #(\d+)", row["source"]))}
    assert numbered == set(range(1, 18))
    assert {name for row in CASES["prompts"] for name in row["prompt"]} == set(ours())


@rows("prompts")
def test_prompt(row: Row) -> None:
    for name in row["prompt"]:
        messages = read(ours()[name]).render("best band?", row.get("passages", ["one", "two"]))
        assert [(m["role"], m["content"]) for m in messages] == [next(iter(m.items())) for m in row["messages"]]


@rows("t5")
def test_t5(row: Row) -> None:
    passages = {"MonoT5": ["D"], "DuoT5": ["A", "B"]}[row["model"]]
    assert getattr(t5, row["model"]).wording.format(*passages, query="Q") == row["text"] == row["theirs"].rstrip()


@rows("texts")
def test_text(row: Row) -> None:
    shown = named("rank_zephyr").document(Doc("1", row["text"], row.get("title", "")))
    assert Passage(shown, 300).first(row.get("words", 300)) == row["shown"] != row.get("theirs")


@rows("replies")
def test_room_for_a_reply(row: Row) -> None:
    assert Listwise(Oracle(float)).max_tokens(row["n"]) == row["tokens"]


@rows("fits")
def test_fit(row: Row) -> None:
    """RankLLM takes words away until the prompt fits; ours, with the same room, has at least as many, and fits."""
    size, context, prompt = row["window"], row["context"], named("rank_zephyr")
    assert row["start"] == int(300 * 20 / size)
    lm, query = Scripted([], context), Query("q", "word " * row.get("query", 3))
    texts = [" ".join(f"w{i}" for i in range(400))] * size
    out = Listwise(lm).max_tokens(size)

    def fitted() -> Any:
        docs = [Doc(str(i), text) for i, text in enumerate(texts)]
        return fit(prompt, lm, query, docs, max_words=row["start"], max_tokens=out)

    if "error" in row:
        with pytest.raises(ModelError, match=row["error"]):
            fitted()
        return
    words = row["start"]
    while (
        over := lm.count(prompt.render(query.text, [" ".join(t.split()[:words]) for t in texts])) - context + out
    ) > 0:
        words -= max(1, over // (4 * size))
    ours = fitted()
    assert words <= ours.words <= row["start"]
    assert lm.count(ours.chat) <= context - out
    shown = ours.chat[1]["content"].splitlines()[1].removeprefix("[1] ").split()
    assert len(shown) == min(ours.words, 400) == row.get("words", len(shown))


@rows("windows")
def test_windows(row: Row) -> None:
    plan, seen = Sliding(row.get("size", 20), row.get("step", 10)), list[tuple[int, int]]()

    def judge(asked: list[tuple[int, list[int]]]) -> Windows:
        seen.extend((window[0], window[-1] + 1) for _, window in asked if len(window) > 1)
        return [window for _, window in asked]

    n = min(row["n"], row.get("depth", 100))
    drive([plan(n)], judge)
    assert len(seen) == plan.calls(n) == row.get("calls", len(row.get("windows", [])))
    assert "windows" not in row or seen == [tuple(ends) for ends in row["windows"]]
    lm = Oracle(float)
    hits = tuple(Hit(Doc(f"d{i}", str(i)), -float(i)) for i in range(row["n"]))
    [out] = Listwise(lm, plan, depth=row.get("depth", 100)).apply([Ranking(Query("1", "q"), hits)])
    assert sum(lm.batches) == len(seen)
    assert [h.doc for h in out.hits[n:]] == [h.doc for h in hits[n:]]


@rows("parse")
def test_parse(row: Row) -> None:
    low, high = row.get("window", (0, row["n"]))
    order = list(range(1, row["n"] + 1))
    reply = parse(row["reply"], high - low, row.get("labels", "numbers"))
    order[low:high] = [order[low:high][i] for i in reply.order]
    assert order == row["order"]


class Likely(Scripted):
    """Finds tokens as likely as it is told, and no others."""

    def __init__(self, logprobs: dict[str, float]) -> None:
        super().__init__([])
        self.logprobs = logprobs

    def _choose(self, chat: Any, choices: Any) -> Any:
        plain = super()._choose
        self.replies, self.heard = [""], []
        return replace(plain(chat, []), logprobs=tuple(self.logprobs.get(c, -inf) for c in choices))


@rows("first")
def test_first(row: Row) -> None:
    prompt = named({"letters": "first", "numbers": "rank_zephyr"}[row.get("labels", "letters")])
    hits = tuple(Hit(Doc(f"d{i}", "text"), -float(i)) for i in range(1, row["n"] + 1))
    [out] = First(Likely(row["logprobs"]), Single(20), prompt).apply([Ranking(Query("1", "q"), hits)])
    assert [int(h.doc.id[1:]) for h in out.hits] == row["order"]
    assert out.steps[0].repaired == (row["missing"] > 0)
    known = set(names(row["n"], prompt.labels, "x"))
    assert row["missing"] == row["n"] - len(known & set(row["logprobs"]))


@rows("kinds")
def test_kind(row: Row) -> None:
    assert named(row.get("prompt", "rank_zephyr")).read(row["reply"], row["n"]).kind == row["kind"] != row.get("theirs")


@rows("verdicts")
def test_verdict(row: Row) -> None:
    yes, no = ([log(p) if p else -inf for p in row[word]] for word in ("yes", "no"))
    odds = verdict(yes, no)
    assert odds is row["score"] is None or share(odds) == pytest.approx(row["score"])


@rows("scores")
def test_scores(row: Row, tmp_path: Path) -> None:
    hits = tuple(Hit(Doc(f"d{i}", "text"), score) for i, score in enumerate(row["scores"]))
    [out] = Listwise(Scripted(["[3] > [1] > [2]"])).apply([Ranking(Query("7", "q"), hits)])
    assert [(h.doc.id, round(h.score, 4)) for h in out.hits] == list(zip(("d2", "d0", "d1"), row["after"], strict=True))
    write_run(tmp_path / "run", [out], tag="rank_llm")
    assert (tmp_path / "run").read_text().splitlines()[0] == "7 Q0 d2 1 1 rank_llm"
    assert ordered(read_run(tmp_path / "run").run["7"]) == ["d2", "d0", "d1"]


PIECES = [
    *("[1] > [2] > [3]", "[3]>[1]", " > ", ">", ", ", "\n", "[A] > [C]", "CAB", "Passage ", "</think>", "<think>"),
    *("12", "0", "007", "-1", "1.5", "²", "⑫", "½", "五", "Ⅳ", "٣", "７", "9" * 20, "a", "B", "Z", "é", "_", "\ud800"),
    *("I'm sorry, I cannot rank these passages.", "[rankstart]", "[", "]", "\x00", "\u2028", "😀", "{", "%s", "\\1"),
]
REPLIES = st.one_of(
    st.text(),
    st.lists(st.sampled_from(PIECES)).map("".join),
    st.lists(st.integers(-1, 25)).map(lambda said: " > ".join(f"[{i}]" for i in said)),
    st.permutations(range(1, 21)).map(lambda said: " > ".join(f"[{i}]" for i in said)),
    st.lists(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabc")).map(" > ".join),
)


def named_in(reply: str, labels: Labels, n: int) -> list[int]:
    """Positions that a reply names, inside the window or not, letter by letter: what the parser finds, told anew."""
    words = [""]
    for c in reply.split("</think>")[-1].split("<think>")[0]:
        number = unicodedata.numeric(c, 0.5) if unicodedata.category(c) in ("Nd", "No") else 0.5
        digits, letter = (str(int(number)) if number == int(number) else ""), c.isalnum()
        belongs = digits if labels == "numbers" else "" if digits else c if letter else ""
        words = [*words[:-1], words[-1] + belongs] if belongs else [*words, ""]
    if labels == "numbers":
        return [int(word) - 1 for word in words if word]
    capitals = "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + "abcdefghijklmnopqrstuvwxyz" * (n > 26)
    return [capitals.index(word) for word in words if word and word in [*capitals]]


def check_reply(text: str, n: int, labels: Labels) -> None:
    """The order is whole, names come first as they were first said, and all that was mended is counted."""
    reply, said = parse(text, n, labels), named_in(text, labels, n)
    inside = [p for p in said if 0 <= p < n]
    first = list(dict.fromkeys(inside))
    assert list(reply.order) == first + [p for p in range(n) if p not in first]
    assert (reply.missing, reply.repeated) == (n - len(first), len(said) - len(set(said)))
    assert reply.foreign == len({p for p in said if p not in range(n)})
    assert reply.mended == (sorted(said) != list(range(n)))


FUZZED = (REPLIES, st.integers(0, 30), st.sampled_from(["numbers", "letters"]))


@settings(max_examples=1_000)
@given(*FUZZED)
def test_1000_replies(text: str, n: int, labels: Labels) -> None:
    check_reply(text, n, labels)


@pytest.mark.slow
@settings(max_examples=20_000)
@given(*FUZZED)
def test_20000_replies(text: str, n: int, labels: Labels) -> None:
    check_reply(text, n, labels)


@settings(max_examples=25)
@given(st.lists(REPLIES, min_size=1, max_size=9))
def test_a_run_counts_every_repair(replies: list[str]) -> None:
    hits = tuple(Hit(Doc(f"d{i}", "text"), -float(i)) for i in range(100))
    nine = [replies[i % len(replies)] for i in range(9)]
    [out] = Listwise(Scripted(nine)).apply([Ranking(Query("1", "q"), hits)])
    assert {h.doc for h in out.hits} == {h.doc for h in hits}
    assert out.steps[0].repaired == sum(sorted(named_in(r, "numbers", 20)) != list(range(20)) for r in nine)
