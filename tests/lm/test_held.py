"""Adapters take turns on weights that are loaded once, and each answers as if it were alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from rankpipe import recipe
from rankpipe.errors import ModelError
from rankpipe.lm.held import Held
from rankpipe.lm.hf import HF
from rankpipe.progress import listening
from tests.heard import Heard
from tests.lm.tiny import drawn

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

from rankpipe.train.adapters.lora import LoRA  # noqa: E402
from rankpipe.train.adapters.randlora import RandLoRA  # noqa: E402

CHATS = [[{"role": "user", "content": f"Which is nearer to {x}?\n[A] fish\n[B] bread"}] for x in ("sea", "oven", "tea")]


def choices(lm: Any) -> list[tuple[float, ...]]:
    return [choice.logprobs for choice in lm.choose(CHATS, ["A", "B"], begin="[")]


def same(said: list[tuple[float, ...]], wanted: list[tuple[float, ...]]) -> bool:
    """But for a rounding: sums depend on where weights lie in memory."""
    return said == [pytest.approx(row, abs=1e-5) for row in wanted]


@pytest.fixture(scope="module")
def smollm2(embedded: Callable[[str], Path], one_thread: None) -> Path:
    return embedded("smollm2")


@pytest.fixture(scope="module")
def loras(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two LoRAs of SmolLM2, of other layers and ranks."""
    folder = tmp_path_factory.mktemp("loras")
    return [
        drawn(LoRA(rank=2, targets=["q_proj", "v_proj"]), smollm2, folder / "a", 1),
        drawn(LoRA(rank=3, alpha=4, targets=["q_proj", "down_proj"]), smollm2, folder / "b", 2),
    ]


def loads(heard: Heard) -> list[str]:
    return [said for said in heard.work if said.endswith("loading")]


def alone(base: Path, adapter: Path | None) -> list[tuple[float, ...]]:
    """What plain PEFT's model of this adapter says, loaded for this only."""
    lm = HF(str(base), dtype="float32")
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    vars(lm)["_held"] = Held(lm._greedy(peft.PeftModel.from_pretrained(model, adapter) if adapter else model).eval())
    return choices(lm)


def test_adapters_take_turns_on_weights_that_are_loaded_once(smollm2: Path, loras: list[Path]) -> None:
    wanted = {adapter: alone(smollm2, adapter) for adapter in (None, *loras)}
    assert not any(same(wanted[a], wanted[b]) for a, b in pairwise([*wanted, None]))
    base = HF("smollm2", dtype="float32")
    lms = {None: base, loras[0]: base.with_adapter(loras[0]), loras[1]: HF("smollm2", loras[1], dtype="float32")}
    with listening(heard := Heard()):
        for adapter in (loras[0], None, loras[1], loras[0], loras[1], None):
            assert same(choices(lms[adapter]), wanted[adapter])
    assert loads(heard) == ["smollm2: loading"]
    assert len({lm._held for lm in lms.values()}) == 1
    layer = base._model.get_submodule("model.layers.0.self_attn.q_proj")
    assert [part.weight.shape[0] for part in layer.lora_A.values()] == [2, 3]
    assert len({lm.identity for lm in lms.values()}) == 3
    assert lms[loras[0]].with_adapter(None).identity == base.identity


def test_a_recipe_names_one(tiny_chat: Path, tmp_path: Path) -> None:
    drawn(LoRA(rank=2), tiny_chat, tmp_path / "models" / "x", 1)
    node = {"use": "hf", "model": str(tiny_chat), "dtype": "float32"}
    base, lm = (recipe.build(node | more, tmp_path) for more in ({}, {"adapter": "models/x"}))
    assert same(choices(lm), alone(tiny_chat, tmp_path / "models" / "x"))
    assert same(choices(base), alone(tiny_chat, None))
    assert base._held is lm._held
    assert recipe.build(node | {"dtype": "bfloat16"}, tmp_path)._held is not lm._held


def test_one_that_is_trained_again_is_another(tiny_chat: Path, tmp_path: Path) -> None:
    base, folder = HF(str(tiny_chat), dtype="float32"), tmp_path / "it"
    for seed in (1, 2):
        drawn(LoRA(rank=2), tiny_chat, folder, seed)
        assert same(choices(base.with_adapter(folder)), alone(tiny_chat, folder))


def test_threads_do_not_change_each_others_adapter(tiny_chat: Path, tmp_path: Path) -> None:
    folders = [drawn(LoRA(rank=2), tiny_chat, tmp_path / str(seed), seed) for seed in (1, 2)]
    wanted = [alone(tiny_chat, folder) for folder in folders]
    lms = [HF(str(tiny_chat), folder, dtype="float32") for folder in folders]
    said: list[list[list[tuple[float, ...]]]] = [[], []]

    def ask(i: int) -> None:
        for _ in range(20):
            said[i].append(choices(lms[i]))

    threads = [Thread(target=ask, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not same(*wanted)
    assert all(same(one, wanted[i]) for i in (0, 1) for one in said[i])
    assert [*map(len, said)] == [20, 20]


def test_other_kinds_have_a_base_of_their_own(tiny_chat: Path, tmp_path: Path) -> None:
    folder = drawn(RandLoRA(rank=4, alpha=80), tiny_chat, tmp_path / "r", 1)
    base = HF(str(tiny_chat), dtype="float32")
    before, lm = choices(base), base.with_adapter(folder)
    assert same(choices(lm), alone(tiny_chat, folder))
    assert not same(choices(lm), before)
    assert same(choices(base), before)
    assert lm._held is not base._held


def test_what_is_no_adapter_of_this_model_harms_no_other(tiny_chat: Path, smollm2: Path, loras: list[Path]) -> None:
    base = HF(str(tiny_chat), dtype="float32")
    before = choices(base)
    with pytest.raises(ModelError, match="PeftModel cannot load it"):
        choices(base.with_adapter(loras[0]))
    assert same(choices(base), before)


def test_weights_go_when_nobody_asks_them(tiny_chat: Path) -> None:
    lm = HF(str(tiny_chat), dtype="float32")
    choices(lm)
    with listening(heard := Heard()):
        choices(HF(str(tiny_chat), dtype="float32"))
        assert loads(heard) == []
        del lm
        choices(HF(str(tiny_chat), dtype="float32"))
    assert loads(heard) == [f"{tiny_chat}: loading"]
