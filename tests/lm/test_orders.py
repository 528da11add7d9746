"""Replies that can be nothing but an order: against a plain loop that knows all of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from random import Random

import pytest

from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.errors import ModelError, RecipeError
from rankpipe.lm import Chat
from rankpipe.lm.cache import Absent, Cached
from rankpipe.lm.fake import Scripted
from rankpipe.lm.hf import HF
from rankpipe.lm.orders import Form, Spelling, Writing
from rankpipe.rerank.listwise import Listwise
from rankpipe.rerank.plans import SetwiseHeap
from rankpipe.rerank.prompts import named, ours, read
from tests.lm.test_hf import chats, exact
from tests.lm.tiny import mistral

pytest.importorskip("torch")
pytest.importorskip("transformers")

FORMS = {
    "brackets": Form(("[1]", "[2]", "[3]", "[12]", "[21]")),
    "bare": Form(("1", "12", "2", "21"), ", "),
    "around": Form(("Passage B", "Passage A", "Passage BA"), " > ", "Order: ", "."),
    "alike": Form(("aab", "aac", "aa")),
    "best": Form(("1", "12", "2", "21"), best=True),
}


def allowed(folder: Path, form: Form) -> list[list[int]]:
    """The tokens of every reply there is."""
    from transformers import AutoTokenizer

    tokenizer, n = AutoTokenizer.from_pretrained(folder), len(form.items)
    orders = permutations(range(n), 1 if form.best else n)
    told = (form.text(order).removesuffix(form.after) for order in orders)
    return [[*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for text in told]


def plain(folder: Path, chat: Chat, form: Form) -> str:
    """Token by token: the likeliest that any reply has there. Without padding, cache or forced tokens."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(list(chat), add_generation_prompt=True, return_dict=False)
    left, new = allowed(folder, form), list[int]()
    while new[-1:] != [tokenizer.eos_token_id]:
        may = sorted({reply[len(new)] for reply in left})
        with torch.inference_mode():
            new.append(may[int(model(torch.tensor([ids + new])).logits[0, -1, may].argmax())])
        left = [reply for reply in left if reply[: len(new)] == new]
    return str(tokenizer.decode(new, skip_special_tokens=True)) + form.after


@pytest.mark.parametrize("form", FORMS.values(), ids=[*FORMS])
def test_as_a_plain_loop_says(tiny_lm: Path, form: Form) -> None:
    asked = chats(8)
    said = exact(tiny_lm).arrange(asked, form)
    assert [c.text for c in said] == [plain(tiny_lm, chat, form) for chat in asked]


def test_batching_changes_nothing(tiny_lm: Path) -> None:
    asked, form = chats(20), FORMS["brackets"]
    one, many = exact(tiny_lm, batch_tokens=1), exact(tiny_lm, batch_tokens=100_000)
    said = many.arrange(asked, form)
    assert said == one.arrange(asked, form)
    assert len({c.text for c in said}) > 2
    assert all(c.tokens_in == many.count(chat) for c, chat in zip(said, asked, strict=True))
    assert {c.tokens_out for c in said} == {len(form.text(range(5))) + 1}  # bytes, and the end
    assert many.arrange([], form) == []


@pytest.mark.parametrize("form", FORMS.values(), ids=[*FORMS])
def test_layers_that_see_a_window(tiny_lm: Path, tmp_path: Path, form: Form) -> None:
    """Are written to by transformers itself, which is told what may come."""
    mistral(tiny_lm, folder := tmp_path / "lm")
    asked = chats(4)
    assert [c.text for c in exact(folder).arrange(asked, form)] == [plain(folder, chat, form) for chat in asked]


@pytest.mark.parametrize("name", [name for name, file in ours().items() if read(file).answer == "order"])
@pytest.mark.parametrize("n", [2, 9, 20])
def test_tokens_are_those_of_the_whole_reply(embedded: Callable[[str], Path], name: str, n: int) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(embedded("smollm2"))
    form, order = named(name).form(n), Random(n).sample(range(n), n)

    def tokens(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    whole = tokens(form.text(order).removesuffix(form.after))
    spelling = Spelling.of(form, tokens, 2, "smollm2")
    writing = Writing(spelling, [*whole[len(spelling.begin) :], 2, 7, 7])
    assert [*spelling.begin] == whole[: len(spelling.begin)]
    assert (writing.order, writing.choices) == (order, [])
    assert len(whole) <= spelling.room


def test_a_written_order_is_whole(tiny_lm: Path) -> None:
    """What the same model writes freely is not."""
    docs = [Doc(f"d{i}", "abcdef"[i]) for i in range(6)]
    asked = [Ranking(Query("1", "a"), tuple(Hit(doc, 1.0) for doc in docs))]
    lm = exact(tiny_lm)
    [free], [kept] = (Listwise(lm, prompt="passage_first", constrained=c).apply(asked) for c in (False, True))
    assert (free.steps[0].repaired, kept.steps[0].repaired) == (1, 0)
    assert sorted(h.doc.id for h in kept.hits) == [doc.id for doc in docs]
    assert [h.doc.id for h in kept.hits] != [doc.id for doc in docs]


def test_the_best_of_a_few(tiny_lm: Path) -> None:
    docs = [Doc(f"d{i}", "abcdef"[i]) for i in range(6)]
    asked = [Ranking(Query("1", "a"), tuple(Hit(doc, 1.0) for doc in docs))]
    stage = Listwise(exact(tiny_lm), SetwiseHeap(k=3), "setwise", constrained=True)
    [out] = stage.apply(asked)
    assert (out.steps[0].repaired, out.steps[0].calls > 2) == (0, True)


def test_is_asked_once(tiny_lm: Path, tmp_path: Path) -> None:
    asked, form, lm = chats(3), FORMS["brackets"], exact(tiny_lm)
    cached = Cached(lm, tmp_path / "answers.sqlite")
    said = cached.arrange(asked, form)
    assert [c.text for c in said] == [c.text for c in lm.arrange(asked, form)]
    offline = Cached(Absent(lm.identity), tmp_path / "answers.sqlite", offline=True)  # type: ignore[arg-type]
    assert offline.arrange(asked, form) == said
    with pytest.raises(ModelError, match="offline"):
        offline.arrange(asked, FORMS["bare"])
    Listwise(offline, constrained=True)


def test_who_cannot(tmp_path: Path) -> None:
    lm = Scripted(["[1]"])
    for one in (lm, Cached(lm, tmp_path / "answers.sqlite")):
        with pytest.raises(RecipeError, match="a Scripted writes what it will; expected hf"):
            Listwise(one, constrained=True)


def test_who_would_think_first(tiny_lm: Path) -> None:
    with pytest.raises(ModelError, match="thinks before it answers"):
        HF(str(tiny_lm), thinking=8).arrange(chats(1), FORMS["brackets"])


def test_a_context_too_short(tiny_lm: Path) -> None:
    form = FORMS["brackets"]
    [chat] = chats(1)
    lm = exact(tiny_lm)
    least = lm.count(chat) + len(form.text(range(5)))
    assert exact(tiny_lm, context=least).arrange([chat], form) == lm.arrange([chat], form)
    with pytest.raises(ModelError, match=f"do not fit into its context of {least - 1}"):
        exact(tiny_lm, context=least - 1).arrange([chat], form)


def test_items_that_melt_together() -> None:
    """A tokenizer may join the end of one with what is behind it."""

    def tokens(text: str) -> list[int]:
        return [ord(c) for c in text.replace("1,", "!")]

    with pytest.raises(ModelError, match=r"'1' has other tokens before ',2'.*brackets around its labels"):
        Spelling.of(Form(("1", "2"), ","), tokens, 0, "some")
