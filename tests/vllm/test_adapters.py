"""LoRAs take turns in one engine, and on a server by name; each ranks as it does in transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.errors import ModelError
from rankpipe.lm import LM
from rankpipe.lm.hf import HF
from rankpipe.lm.http import Http
from rankpipe.lm.vllm import VLLM
from rankpipe.rerank.first import First
from tests.lm.tiny import drawn

CLOSE = 1e-3  # of log-probabilities, in single precision
CONTEXT = 4096
LABELS = list("ABCDEFGH")
CHATS = [[{"role": "user", "content": f"What is the capital of {place}?"}] for place in ("France", "Japan", "Peru")]
WINDOW = Ranking(
    Query("q", "how do tides arise?"),
    tuple(
        Hit(Doc(f"d{i}", text), -float(i))
        for i, text in enumerate(
            [
                "bread needs flour",
                "the moon pulls the sea",
                "cats sleep",
                "rivers run",
                "the sun pulls, too",
                "salt",
                "a hull",
            ]
        )
    ),
)


def order(lm: LM) -> list[str]:
    return [h.doc.id for h in First(lm).run([WINDOW])[0].hits]


@pytest.fixture(scope="session")  # an engine that ends takes others of its process with it
def swapping(loras: dict[str, Path]) -> VLLM:
    """An engine that is started for one of them, and told of the other before."""
    made = VLLM("smollm2", loras["one"], dtype="float32", context=CONTEXT)
    made.with_adapter(loras["two"])
    return made


def test_adapters_take_turns(hf: HF, swapping: VLLM, loras: dict[str, Path]) -> None:
    said = {}
    for adapter in (loras["one"], None, loras["two"], loras["one"]):
        ours, theirs = hf.with_adapter(adapter), swapping.with_adapter(adapter)
        wanted = [choice.logprobs for choice in ours.choose(CHATS, LABELS, begin="[")]
        for one, other in zip(theirs.choose(CHATS, LABELS, begin="["), wanted, strict=True):
            assert one.logprobs == pytest.approx(other, abs=CLOSE)
        said[adapter] = (order(theirs), wanted)
        assert order(ours) == said[adapter][0]
        assert theirs._engine is swapping._engine
    firsts = [wanted[0][0] for _, wanted in said.values()]
    assert all(abs(a - b) > 100 * CLOSE for i, a in enumerate(firsts) for b in firsts[:i])
    assert len({swapping.with_adapter(adapter).identity for adapter in said}) == 3


def test_a_server_has_them_by_name(server: str, swapping: VLLM, loras: dict[str, Path]) -> None:
    for name, adapter in {**loras, "smollm2": None}.items():
        lm, here = Http(name, server), swapping.with_adapter(adapter)
        assert lm.context == CONTEXT
        for one, other in zip(*(m.choose(CHATS, LABELS, begin="[") for m in (lm, here)), strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=CLOSE)
        assert order(lm) == order(here)


def test_what_there_is_no_room_for(swapping: VLLM, vllm: VLLM, smollm2: Path, tmp_path: Path) -> None:
    from rankpipe.train.adapters.lora import LoRA

    swapping.ready()
    large = drawn(LoRA(rank=9, targets=["q_proj"]), smollm2, tmp_path / "large", 3)
    with pytest.raises(ModelError, match=r"of rank 9, and the engine that runs has room for 8; .*'max_lora_rank': 16"):
        swapping.with_adapter(large)
    vllm.ready()
    with pytest.raises(ModelError, match="has room for 0"):
        vllm.with_adapter(large)
    assert VLLM("smollm2", engine={"enable_lora": True}).with_adapter(large).adapter == large


@pytest.mark.parametrize(
    ("said", "kind", "cure"),
    [
        ({"peft_type": "IA3"}, "IA3", "merge it: rankpipe models merge"),
        ({"peft_type": "RANDLORA", "r": 4}, "RANDLORA", "merge it: rankpipe models merge"),
        ({"peft_type": "LORA", "r": 4, "use_dora": True}, "DORA", "merge it: rankpipe models merge"),
        ({"peft_type": "ADALORA", "r": 4}, "ADALORA", "rankpipe models export .* --format lora"),
        ({"peft_type": "LORA", "r": 513}, "LORA", "merge it: rankpipe models merge"),
    ],
    ids=lambda told: told if isinstance(told, str) else "",
)
def test_what_is_no_plain_lora(said: dict[str, object], kind: str, cure: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(said))
    with pytest.raises(ModelError, match=f"takes LoRA adapters of a rank up to 512, and this is {kind}, .*; .*{cure}"):
        VLLM("smollm2", tmp_path).complete(CHATS, max_tokens=1)
    with pytest.raises(ModelError, match=kind):
        VLLM("smollm2").with_adapter(tmp_path)
