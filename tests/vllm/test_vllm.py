"""vLLM in this process answers as transformers does: the same tokens in, the same tokens and log-probabilities out."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rankpipe import recipe
from rankpipe.errors import ModelError, RecipeError
from rankpipe.lm import Chat
from rankpipe.lm.hf import HF
from rankpipe.lm.vllm import VLLM

CLOSE = 1e-3  # of log-probabilities, in single precision
LABELS = list("ABCDEFGHIJKLMNOPQRST")


def ask(text: str) -> Chat:
    return [{"role": "user", "content": text}]


def chats() -> list[Chat]:
    told = [f"What is the capital of {country}?" for country in ("France", "Japan", "Peru")]
    return [ask(text) for text in (*told, "Sort 3, 1, 2.", "<|im_end|> is no end.", "word " * 700, "")]


def test_replies_are_those_of_transformers(hf: HF, vllm: VLLM) -> None:
    said = vllm.complete(chats(), max_tokens=24)
    assert said == hf.complete(chats(), max_tokens=24)
    assert "Paris" in said[0].text
    assert any(c.tokens_out < 24 for c in said), "some end by themselves"
    assert [vllm.count(chat) for chat in chats()] == [c.tokens_in for c in said]
    assert said == [vllm.complete([chat], max_tokens=24)[0] for chat in chats()]
    assert vllm.complete([], max_tokens=5) == []


def test_choices_are_as_likely_as_transformers_says(hf: HF, vllm: VLLM) -> None:
    """Of the whole vocabulary: what is asked for does not change it."""
    both = [lm.choose(chats(), LABELS, begin="[") for lm in (hf, vllm)]
    for ours, theirs in zip(*both, strict=True):
        assert theirs.logprobs == pytest.approx(ours.logprobs, abs=CLOSE)
        assert theirs.tokens_in == ours.tokens_in
    few = vllm.choose(chats(), ["T", "C"], begin="[")
    assert [c.logprobs for c in few] == [pytest.approx((c.logprobs[19], c.logprobs[2]), abs=CLOSE) for c in both[1]]
    assert vllm.is_token("A", begin="[")
    with pytest.raises(ModelError, match=r"'ABXQ' after '\['.* is no single token"):
        vllm.choose(chats(), ["A", "ABXQ"], begin="[")
    with pytest.raises(ModelError, match=r"vLLM: .*128"):
        vllm.choose(chats()[:1], LABELS * 7, begin="[")


def test_replies_are_as_likely_as_transformers_says(hf: HF, vllm: VLLM) -> None:
    replies = ["Paris", "", "The capital of Peru is Lima.", "1, 2, 3", "x", "word " * 40, "?"]
    for ours, theirs in zip(*(lm.likelihood(chats(), replies) for lm in (hf, vllm)), strict=True):
        assert theirs.logprob == pytest.approx(ours.logprob, abs=10 * CLOSE)
        assert (theirs.tokens, theirs.tokens_in) == (ours.tokens, ours.tokens_in)


def test_what_chats_begin_with_is_computed_once(hf: HF, vllm: VLLM) -> None:
    one, other = (ask("A long story about foxes. " * 100 + end) for end in ("Who is it about?", "Sum it up."))
    vllm.complete([one], max_tokens=8)
    before = vllm.cached_tokens
    assert vllm.complete([other], max_tokens=8) == hf.complete([other], max_tokens=8)
    assert 512 <= vllm.cached_tokens - before < vllm.count(other)


def test_what_does_not_fit_is_refused(vllm: VLLM) -> None:
    assert vllm.context == 4096
    with pytest.raises(ModelError, match=r"a chat of \d+ tokens and a reply of 9 do not fit into its context of 4096"):
        vllm.complete([ask("word " * 5000)], max_tokens=9)


def test_a_reply_matches_the_pattern(vllm: VLLM) -> None:
    ranking = r"\[\d\]( > \[\d\]){2}"
    held = VLLM("smollm2", dtype="float32", context=4096, pattern=ranking)
    asked = chats()[:4]
    said = held.complete(asked, max_tokens=24)
    assert all(re.fullmatch(ranking, c.text) for c in said)
    assert not any(re.fullmatch(ranking, c.text) for c in vllm.complete(asked, max_tokens=24))
    assert held.identity != vllm.identity
    with pytest.raises(ModelError, match="vLLM"):
        VLLM("smollm2", dtype="float32", context=256, pattern="[").complete(asked, max_tokens=4)


def test_what_cannot_be_loaded(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError, match=r"(?s)smollm2: vLLM cannot load it: .*quantization"):
        VLLM("smollm2", engine={"quantization": "nonsense"}).complete([ask("a")], max_tokens=1)
    assert capfd.readouterr() == ("", "")


def test_recipes() -> None:
    node: dict[str, Any] = {"use": "listwise", "lm": {"use": "vllm", "model": "smollm2", "context": 4096}}
    assert recipe.check(node) == []
    [fault] = recipe.check({**node, "lm": {"use": "vllm", "enforce_eagre": True}})
    assert "did you mean enforce_eager" in fault
    for wrong in ({"tensor_parallel_size": 0}, {"context": 0}, {"pattern": "a", "thinking": 9}):
        with pytest.raises(RecipeError):
            VLLM(**wrong)


def test_nothing_is_said(smollm2: Path, tmp_path: Path) -> None:
    """One process, whose output is the program's own; no main guard, no compiler, nothing kept in the environment."""
    code = (
        "import os; from rankpipe.lm.vllm import VLLM; "
        "lm, chat = VLLM(context=256), [{'role': 'user', 'content': 'Hello'}]; "
        "print(lm.complete([chat], max_tokens=4)[0].tokens_out, len(lm.choose([chat], ['A', 'B'])[0].logprobs), "
        "'VLLM_ENABLE_V1_MULTIPROCESSING' in os.environ)"
    )
    bare = os.environ | {"CXX": "no-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=bare)
    assert (done.returncode, done.stdout, done.stderr) == (0, "4 2 False\n", "")


def test_the_command_line_prints_json_and_nothing_else(tiny_path: Path, tmp_path: Path) -> None:
    docs = ["tide-1", "tide-2", "tide-3"]
    run = tmp_path / "run.trec"
    run.write_text("".join(f"q1 Q0 {doc} {i} {9 - i} x\n" for i, doc in enumerate(docs, 1)))
    words = ["rerank", str(run), "--data", str(tiny_path), "--model", "smollm2", "--lm", "vllm", "--use", "first"]
    program = [sys.executable, "-c", "from rankpipe.cli import main; main()", *words, "--json", "--quiet"]
    done = subprocess.run(program, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    [ranking] = json.loads(done.stdout)["rankings"]
    assert sorted(hit["docid"] for hit in ranking["hits"]) == docs
