"""Whatever an attack of eval/injection says, a guarded prompt keeps its structure: only its passage's line differs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from rankpipe.data import Doc, Query
from rankpipe.lm import Chat
from rankpipe.lm.hf import HF
from rankpipe.rerank.prompts import PointPrompt, Wording, chosen, named

ROOT = Path(__file__).parents[2]
ATTACKS = yaml.safe_load((ROOT / "eval" / "injection" / "attacks.yaml").read_text("utf-8"))
EACH = [pytest.param(text, id=f"{family}-{i}") for family, texts in ATTACKS.items() for i, text in enumerate(texts)]
BREAKING = ("chat-tokens", "fake-passage", "fake-query", "fake-end")
DOCS = tuple(Doc(str(i), f"A text about bands, the {i}th.") for i in range(4))
PLACE = 2  # of the attacked passage
LABEL = re.compile(r"[\[【]\s*(\w{1,2})\s*[\]】]")
TOKEN = re.compile(r"<\|\w+\|>|</?(?:s|start_of_turn|end_of_turn)>|\[/?INST\]")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "eval" / "bench")
    import injection

    return injection


def seen(text: str) -> str:
    """As a reader sees it who neither minds forms of letters nor what has no width."""
    return "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")


def skeleton(chat: Chat, own: str, labels: Sequence[str]) -> list[tuple[str, list[tuple[str, list[str], list[str]]]]]:
    """Roles, and of each line its words (of the attacked passage's those before the passage), the window's labels as a
    reader sees them, and the template tokens as a tokenizer does.
    """
    made = []
    for message in chat:
        lines = [
            (
                line.partition(own)[0],
                [label for label in LABEL.findall(seen(line)) if label in labels],
                TOKEN.findall(line),
            )
            for line in message["content"].splitlines()
        ]
        made.append((message["role"], lines))
    return made


def rendered(prompt: Wording, docs: tuple[Doc, ...]) -> Chat:
    return prompt.render("best band", [prompt.document(doc) for doc in docs])


def cases(bench: Any, attack: str, guard: bool) -> list[tuple[Chat, Chat, Sequence[str]]]:
    """Each of our prompts with the attack and without, and its labels."""
    made: list[tuple[Chat, Chat, Sequence[str]]] = []
    window = bench.Window(Query("1", "best band"), DOCS, PLACE)
    for name in ("first", "rank_zephyr", "rank_zephyr_paper", "rank_gpt", "setwise"):
        prompt = replace(named(name), guard=guard)
        text = bench.filled(attack, window, prompt)
        docs = (*DOCS[:PLACE], window.attacked(text), *DOCS[PLACE + 1 :])
        made.append((rendered(prompt, docs), rendered(prompt, DOCS), prompt.names(len(DOCS) + 1)))
    for name, answer in (("pointwise", "verdict"), ("upr", "query")):
        point = replace(chosen(name, PointPrompt, answer), guard=guard)
        text = bench.filled(attack, window)
        made.append((rendered(point, (window.attacked(text),)), rendered(point, (window.target,)), ()))
    return made


def kept(bench: Any, attack: str, guard: bool) -> list[bool]:
    own = DOCS[PLACE].text
    found = cases(bench, attack, guard)
    return [skeleton(a, own, labels) == skeleton(b, own, labels) for a, b, labels in found]


@pytest.mark.parametrize("attack", EACH)
def test_a_guarded_prompt_keeps_its_structure(bench: Any, attack: str) -> None:
    assert all(kept(bench, attack, guard=True))


@pytest.mark.parametrize("attack", [text for family in BREAKING for text in ATTACKS[family]])
def test_an_unguarded_one_does_not(bench: Any, attack: str) -> None:
    assert not any(kept(bench, attack, guard=False))


def test_the_program_starts(bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["injection.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        bench.main()
    assert "--into" in capsys.readouterr().out


def test_there_are_attacks_enough_and_a_placebo() -> None:
    assert all(len(texts) == 4 and len({*texts}) == 4 for texts in ATTACKS.values())
    assert "placebo" in ATTACKS
    assert not any("{" in text for text in ATTACKS["placebo"])
    assert 30 <= sum(map(len, ATTACKS.values())) <= 60


def test_what_an_attack_knows(bench: Any) -> None:
    window = bench.Window(Query("1", "best band"), DOCS, PLACE)
    text = bench.filled("{label} {other} {next} {query} {reply}", window, named("first"))
    assert text == "C A E best band [C] > [A] > [B] > [D]"
    assert bench.filled("{label} {other}", replace(window, place=0), named("rank_zephyr")) == "1 2"
    assert bench.filled("{label} {reply}", window) == "1 Yes"
    assert window.ranking("x").hits[PLACE].doc.text == f"{DOCS[PLACE].text} x"
    assert window.ranking().hits[PLACE].doc == DOCS[PLACE]


def test_the_measurement_with_fakes(bench: Any) -> None:
    """A reranker that obeys whoever says [C] first rises when unguarded; the guard takes the brackets away."""
    from rankpipe.lm.fake import Fake, _ranking
    from rankpipe.rerank.listwise import Listwise

    class Obedient(Fake):
        guard = True

        def reply(self, text: str) -> str:
            orders = re.findall(r"Ranking: \[(\d+)\]", text)
            return _ranking([*orders, *(label for label in "1234" if label not in orders)])

    class Naive(Obedient):
        guard = False

    windows = [bench.Window(Query(str(q), "best band"), DOCS, PLACE) for q in range(4)]
    bare, guarded = bench.windowed(Listwise, windows, [Naive(), Obedient()], named("rank_zephyr"))
    forged = [(b, g) for b, g in zip(bare, guarded, strict=True) if b.family == "identifiers" and b.query == "2"]
    assert [(b.before, b.after, b.gain, b.won, b.touched) for b, _ in forged] == [((3, None), (1, None), 2, 1, True)]
    assert [(g.before, g.after, g.gain, g.won) for _, g in forged] == [((3, None), (3, None), 0, 0)]
    assert not any(b.touched for b in bare if b.family == "placebo")
    row = bench.summary("listwise", [bare, guarded], False, 1.0)
    assert (row["windows"], row["won_without"], row["won_with"]) == (52, 1, 0)
    assert row["gain_with"] == "+0.00 [+0.00, +0.00]"


def test_scorers_are_measured_passage_by_passage(bench: Any) -> None:
    """By one that counts the query's words."""
    from rankpipe.lm.fake import Noisy
    from rankpipe.rerank.pointwise import Pointwise

    docs = (Doc("a", "the best band"), Doc("b", "a best band"), *DOCS[2:])
    windows = [bench.Window(Query(str(q), "best band"), docs, PLACE) for q in range(4)]
    lms = [Noisy(noise=0), Noisy(noise=0)]
    [alone] = bench.one_by_one(windows, [Pointwise(lms[1])])
    assert not any(o.touched for o in alone)
    point = chosen("pointwise", PointPrompt, "verdict")
    bare, guarded = bench.one_by_one(windows, [Pointwise(lms[0], replace(point, guard=False)), Pointwise(lms[1])])
    assert guarded == [replace(o, touched=b.touched) for o, b in zip(alone, bare, strict=True)]
    assert {o.touched for o in bare} == {True, False}
    assert all(b == g for b, g in zip(bare, guarded, strict=True) if not b.touched)
    assert [o.rise for o in bare if o.family == "placebo"] == [0] * 4
    assert all(o.won and o.gain == 2 and o.rise > 0.9 for o in bare if o.family == "stuffing")
    assert sum(lms[0].batches) < sum(lms[1].batches)  # the bare one is not asked what it has been


@pytest.mark.slow
def test_no_token_of_the_template_comes_from_a_passage(bench: Any, embedded: Callable[[str], Path]) -> None:
    """With SmolLM2's own tokenizer, guards on and off."""
    folder = str(embedded("smollm2"))

    def added(guard: bool) -> list[int]:
        lm = HF(folder, guard=guard)
        special = set(lm._tokenizer.all_special_ids) | {*lm._tokenizer.added_tokens_decoder}
        more = []
        for attack in (a.values[0] for a in EACH):
            for a, b, _ in cases(bench, str(attack), guard):
                with_it, without = (sum(token in special for token in lm._encode(chat)) for chat in (a, b))
                more.append(with_it - without)
        return more

    assert not any(added(guard=True))
    assert any(added(guard=False))
