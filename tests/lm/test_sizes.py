"""How many tokens a chat has: by the server, by a tokenizer, or by its bytes; never too few."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from rankpipe.errors import ModelError
from rankpipe.lm import Chat
from rankpipe.lm.http import Http
from rankpipe.lm.wire import Manners
from tests.lm.server import Handler, hang_up, say, serving, well

CHAT: Chat = [{"role": "system", "content": "You rank."}, {"role": "user", "content": "tea or bikes?"}]


def unasked(tokenizer: Path | None = None) -> Http:
    """A model whose server is known not to count."""
    lm = Http("m", tokenizer=tokenizer)
    lm.sizes._asks = False
    return lm


def letters(handler: Handler, body: Any) -> None:
    """A tokenizer of letters, with a chat template of five tokens a message."""
    texts = [m["content"] + "<|_|>" for m in body["messages"]] if "messages" in body else [body["prompt"]]
    told = {"count": 1, "tokens": [ord(c) for c in "".join(texts)], "max_model_len": 9}
    handler.send(200, json.dumps(told).encode())


def test_the_server_counts_each_chat_once() -> None:
    with serving(tokenize=[letters]) as server:
        lm = Http("m", server.url, parameters={"chat_template_kwargs": {"enable_thinking": False}, "seed": 3})
        assert [lm.count(CHAT) for _ in range(3)] == [9 + 13 + 10] * 3
        assert lm.count(CHAT[1:]) == 18
    assert server.bodies("/tokenize") == [
        {"model": "m", "messages": chat, "chat_template_kwargs": {"enable_thinking": False}}
        for chat in (CHAT, CHAT[1:])
    ]


@pytest.mark.parametrize("act", [*(say({}, status) for status in (400, 403, 404, 405, 422, 501)),
                                 say({"tokens": []}), say(b"<html>")])  # fmt: skip
def test_a_server_that_does_not_count_is_asked_once(act: Callable[..., None]) -> None:
    """llama.cpp knows the path, and has another name for the text: it would find no tokens at all."""
    with serving(tokenize=[act]) as server:
        lm = Http("m", server.url)
        assert lm.count(CHAT) == 100 + 2 * 16 + len("systemYou rank.usertea or bikes?")
        assert lm.count([]) == 100
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (say({"error": {"message": "who are you"}}, 401), "who are you"),
        (say({}, 418), "418"),
    ],
)
def test_a_server_that_refuses_is_not_guessed_for(act: Callable[..., None], said: str) -> None:
    with serving(tokenize=[act]) as server, pytest.raises(ModelError, match=said):
        Http("m", server.url).count(CHAT)
    assert len(server.asked) == 1


@pytest.mark.parametrize("act", [say({}, 500), say({}, 502), hang_up, say([3]), say({"count": 3, "max_model_len": 9})])
def test_a_server_that_always_fails_to_count_is_one_that_does_not(act: Callable[..., None]) -> None:
    """A proxy that knows the way to chats only need not say so well. And the rest of the run is not held up."""
    with serving([well()], tokenize=[act]) as server:
        lm = Http("m", server.url, manners=Manners(tries=2, wait_s=0))
        assert [lm.count(chat) for chat in (CHAT, CHAT, [])] == [unasked().count(CHAT)] * 2 + [100]
        assert lm.is_token("A", begin="[")
        assert [c.text for c in lm.complete([CHAT], max_tokens=9)] == ["fine"]
    assert len(server.bodies("/tokenize")) == 2
    assert lm.totals.estimated == 2


def test_one_failure_is_no_reason(tmp_path: Path) -> None:
    with serving(tokenize=[say({}, 502), hang_up, letters]) as server:
        lm = Http("m", server.url, manners=Manners(tries=3, wait_s=0))
        assert (lm.count(CHAT), lm.totals.estimated) == (9 + 13 + 10, 0)


def test_a_tokenizer_of_ones_own(tmp_path: Path) -> None:
    """Settings for cutting and padding, as encoders' tokenizers have them, are not heeded."""
    words = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1, "user": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.enable_truncation(5)
    words.enable_padding(length=50)
    words.save(str(tmp_path / "tokenizer.json"))
    chat: Chat = [{"role": "user", "content": "a " * 40}]
    assert unasked(tmp_path).count(chat) == unasked(tmp_path / "tokenizer.json").count(chat) == 100 + 16 + 1 + 40
    with pytest.raises(ModelError, match=r"none/tokenizer\.json: no such tokenizer"):
        unasked(tmp_path / "none" / "tokenizer.json").count(chat)


def bytes_of_bpe() -> Tokenizer:
    """As GPT-2's and Llama 3's: letters stand for bytes. Without merges it makes as many tokens as it can."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(sorted(alphabet))}, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return bpe


def fallback_to_bytes() -> Tokenizer:
    """As Llama 2's and Gemma's: SentencePiece, with normalisation, and bytes for what the vocabulary lacks."""
    vocabulary = [*(f"<0x{i:02X}>" for i in range(256)), "<unk>", "▁"]
    bpe = Tokenizer(
        models.BPE({t: i for i, t in enumerate(vocabulary)}, [], byte_fallback=True, unk_token="<unk>", fuse_unk=False)
    )
    bpe.normalizer = normalizers.NFKC()
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    bpe.decoder = decoders.ByteFallback()
    return bpe


@pytest.mark.parametrize("make", [bytes_of_bpe, fallback_to_bytes])
@settings(deadline=None, max_examples=200)
@given(text=st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("ﷺ½ﬀ́ 漢🙂\n")), max_size=40))
def test_no_fewer_than_the_worst_tokenizers_make(make: Callable[[], Tokenizer], text: str) -> None:
    tokens = len(make().encode(text, add_special_tokens=False).ids)
    chat: Chat = [{"role": "", "content": text}]
    assert unasked().at_most(chat) == unasked().count(chat) >= 100 + tokens


def test_half_a_letter_has_its_bytes() -> None:
    assert Http("m").at_most([{"role": "", "content": "a\ud800"}]) == 100 + 16 + 4


def test_no_fewer_than_a_real_chat_has(embedded: Callable[[str], Path]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from rankpipe.lm.hf import HF

    folder = embedded("smollm2")
    truth, by_tokenizer, by_bytes = HF(str(folder)), unasked(folder), unasked()
    texts = [
        "tea",
        "",
        "Let the leaves steep for three minutes. " * 50,
        "茶葉を三分間蒸らす" * 20,
        "ﷺ" * 9,
        "0x" + "9f" * 80,
    ]
    for text in texts:
        for chat in ([{"role": "user", "content": text}], [*CHAT, {"role": "assistant", "content": text}]):
            assert truth.count(chat) <= by_tokenizer.count(chat) <= truth.count(chat) + 100 + 16 * len(chat)
            assert truth.count(chat) <= by_bytes.count(chat)


def test_the_token_of_a_label(tmp_path: Path) -> None:
    bytes_of_bpe().save(str(tmp_path / "tokenizer.json"))
    with serving(tokenize=[letters]) as server:
        asking, own = Http("m", server.url).sizes, unasked(tmp_path).sizes
        assert [asking.token("A", "["), asking.token("A", "")] == [65, 65]
        assert [own.token("A", "["), own.token("A", "")] == [
            None,
            None,
        ]  # one it is, but the server may call it otherwise
        for sizes in (asking, own):
            for label in ("10", ""):
                with pytest.raises(ModelError, match=r"m: '.*' after '\[' is no single token; take other labels"):
                    sizes.token(label, "[")
        asked = [body["prompt"] for body in server.bodies("/tokenize")]
    assert sorted(asked) == ["", "A", "[", "[10", "[A"]  # "[" again is known
    assert unasked().sizes.token("10", "[") is None  # nobody can say
    assert unasked().is_token("10", begin="[")
