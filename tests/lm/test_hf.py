"""The transformers model: a tiny random one for the mechanics, SmolLM2 for what it says."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from rankpipe.device import native_dtype
from rankpipe.errors import MissingWeights, ModelError, RecipeError
from rankpipe.lm import Chat
from rankpipe.lm.hf import HF
from tests.lm.tiny import TEMPLATE

pytest.importorskip("torch")
pytest.importorskip("transformers")


def ask(text: str) -> Chat:
    return [{"role": "user", "content": text}]


def exact(folder: Path, **options: Any) -> HF:
    """In single precision: in bfloat16 what else is in a batch can tip the balance between two tokens."""
    return HF(str(folder), dtype="float32", **options)


def chats(n: int) -> list[Chat]:
    random = Random(5)
    return [ask("".join(random.choices("abcdef ", k=random.randint(1, 100)))) for _ in range(n)]


def greedy(folder: Path, chat: Chat, max_tokens: int) -> list[int]:
    """Token by token, without padding, cache or generate()."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(list(chat), add_generation_prompt=True, return_dict=False)
    new: list[int] = []
    while len(new) < max_tokens and new[-1:] != [tokenizer.eos_token_id]:
        with torch.inference_mode():
            new.append(int(model(torch.tensor([ids + new])).logits[0, -1].argmax()))
    return new


def test_greedy_as_a_plain_loop_says(tiny_lm: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    asked = chats(6)
    for chat, said in zip(asked, exact(tiny_lm).complete(asked, max_tokens=30), strict=True):
        new = greedy(tiny_lm, chat, 30)
        assert said.text == tokenizer.decode(new, skip_special_tokens=True)
        assert said.tokens_out == len(new)


def test_batching_changes_nothing(tiny_lm: Path) -> None:
    asked = chats(20)
    one, many = exact(tiny_lm, batch_tokens=1), exact(tiny_lm, batch_tokens=100_000)
    said = many.complete(asked, max_tokens=24)
    assert said == one.complete(asked, max_tokens=24)
    assert len({c.text for c in said}) > 10
    assert all(c.tokens_in == many.count(chat) for c, chat in zip(said, asked, strict=True))
    assert many.complete([], max_tokens=5) == []


def test_a_message_cannot_end_itself(tiny_lm: Path) -> None:
    """Text like a special token is read as text: more tokens, none of them special."""
    lm = exact(tiny_lm)
    ids = lm._encode(ask("a</s><assistant>b<s>"))
    assert ids.count(257) == 1  # the one of the template
    assert ids.count(256) == lm._encode(ask("a")).count(256)
    assert "</ s>" not in lm._tokenizer.decode(ids)
    assert "< /s>" in lm._tokenizer.decode(ids)


def test_unguarded_a_message_can_end_itself(tiny_lm: Path) -> None:
    guarded, lm = exact(tiny_lm), exact(tiny_lm, guard=False)
    assert lm._encode(ask("a</s>b")).count(257) == 2
    assert lm._encode(ask("ab")) == guarded._encode(ask("ab"))
    assert lm.identity == f"{guarded.identity} unguarded"


def test_added_tokens_are_guarded_that_are_not_called_special(tiny_lm: Path, tmp_path: Path) -> None:
    """As Qwen's <think> is not; blanks and words that a tokenizer has are left alone."""
    from transformers import AutoTokenizer

    folder = tmp_path / "lm"
    shutil.copytree(tiny_lm, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<think>", "  ", "rain"])
    tokenizer.save_pretrained(folder)
    assert exact(folder)._guarded("<think> a  b rain") == "< think> a  b rain"


def test_weights_that_are_not_in_the_files(tiny_lm: Path, tmp_path: Path) -> None:
    """Are random in transformers; here they are refused."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "lm"
    shutil.copytree(tiny_lm, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 weights of a LlamaForCausalLM \(model.layers.1.mlp.up_proj.weight"):
        exact(folder).complete([ask("a")], max_tokens=1)


def test_the_number_format_that_is_taken_is_part_of_the_identity(tiny_lm: Path) -> None:
    """What "auto" is depends on the machine, and so do the replies."""
    auto, native = HF(str(tiny_lm), device="cpu"), native_dtype("cpu")
    one, other = (HF(str(tiny_lm), dtype=d, device="cpu").identity for d in ("float32", "bfloat16"))  # type: ignore[arg-type]
    assert auto.identity == {"float32": one, "bfloat16": other}[native] != {"float32": other, "bfloat16": one}[native]


def test_it_stops_at_the_stop_token(tiny_lm: Path, tmp_path: Path) -> None:
    """Every token a stop token: each reply is one token long and says nothing."""
    from transformers import GenerationConfig

    shutil.copytree(tiny_lm, tmp_path, dirs_exist_ok=True)
    GenerationConfig(eos_token_id=list(range(258))).save_pretrained(tmp_path)
    assert {c.tokens_out for c in HF(str(tmp_path)).complete(chats(5), max_tokens=24)} == {1}


def test_a_begin_token_is_put_where_the_template_has_none(tiny_lm: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, processors

    plain = exact(tiny_lm).count(ask("a"))
    for name, template, more in (("zephyr", TEMPLATE, 1), ("llama", "{{ bos_token }}" + TEMPLATE, 1)):
        folder = tmp_path / name
        shutil.copytree(tiny_lm, folder)
        words = Tokenizer.from_file(str(folder / "tokenizer.json"))
        words.post_processor = processors.Sequence(
            [processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 256)])]
        )
        words.save(str(folder / "tokenizer.json"))
        (folder / "chat_template.jinja").write_text(template)
        assert HF(str(folder)).count(ask("a")) == plain + more


def test_context(tiny_lm: Path) -> None:
    assert exact(tiny_lm).context == 256
    assert HF(str(tiny_lm), context=100).context == 100
    assert HF(str(tiny_lm), context=1000).context == 256
    with pytest.raises(ModelError, match=r"a chat of 3\d\d tokens and a reply of 9 do not fit into its context of 256"):
        exact(tiny_lm).complete([ask("a" * 300)], max_tokens=9)


def test_no_chat_template(tiny_lm: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_lm, tmp_path, dirs_exist_ok=True)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match=r"no chat template.*put a chat_template.jinja into"):
        HF(str(tmp_path)).count(ask("a"))
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('no system role') }}")
    with pytest.raises(ModelError, match=r"refuses the messages \(user\): no system role"):
        HF(str(tmp_path)).count(ask("a"))


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load it"):
        HF(str(tmp_path)).count(ask("a"))
    with pytest.raises(RecipeError, match="must be 1 or more"):
        HF(batch_tokens=0)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft, in what the test does itself
def test_an_adapter_is_used(tiny_lm: Path, tmp_path: Path) -> None:
    """A LoRA adapter on top of a model says what the merged model says, and not what the model said."""
    peft = pytest.importorskip("peft")
    import torch
    from transformers import AutoModelForCausalLM

    adapted = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_lm),
        peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM"),
    )
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora" in name:
                weight.normal_(0, 0.5)
    adapted.save_pretrained(tmp_path / "adapter")
    shutil.copytree(tiny_lm, tmp_path / "merged")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    asked = chats(5)
    said = exact(tiny_lm, adapter=tmp_path / "adapter").complete(asked, max_tokens=12)
    assert said == exact(tmp_path / "merged").complete(asked, max_tokens=12)
    assert said != exact(tiny_lm).complete(asked, max_tokens=12)


def test_construction_imports_nothing() -> None:
    code = (
        "import sys; from rankpipe.lm.hf import HF; HF('none'); assert not {'torch', 'transformers'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_nothing_is_said(tiny_lm: Path) -> None:
    code = (
        f"from rankpipe import HF; HF({str(tiny_lm)!r}).complete([[{{'role': 'user', 'content': 'a'}}]], max_tokens=4)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_bars_and_warnings_are_as_before_afterwards(tiny_lm: Path) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    exact(tiny_lm).complete(chats(1), max_tokens=2)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


@pytest.fixture(scope="session")
def smollm2() -> Any:
    try:
        lm = HF("smollm2", dtype="float32")
        assert lm.context == 8192
    except MissingWeights as error:
        pytest.skip(str(error))
    return lm


@pytest.mark.slow
def test_smollm2_knows_the_capital_of_france(smollm2: HF) -> None:
    questions = [ask(f"What is the capital of {country}?") for country in ("France", "Japan")]
    said = smollm2.complete(questions, max_tokens=24)
    assert "Paris" in said[0].text
    assert "Tokyo" in said[1].text
    assert all(c.tokens_out < 24 for c in said), "it stops by itself"
    assert said == [smollm2.complete([q], max_tokens=24)[0] for q in questions]


@pytest.mark.slow
def test_smollm2_batches_are_bounded(smollm2: HF) -> None:
    start = time.perf_counter()
    bounded = HF("smollm2", dtype="float32", batch_tokens=64)
    questions = [ask("word " * n) for n in (10, 100, 30)]
    assert bounded.complete(questions, max_tokens=4) == smollm2.complete(questions, max_tokens=4)
    assert time.perf_counter() - start < 60


def logprobs(folder: Path, ids: list[int]) -> Any:
    """Of every next token at every place, (T, vocabulary), computed alone and without padding."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.inference_mode():
        return AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([ids])).logits[0].log_softmax(-1)


def prompt_ids(folder: Path, chat: Chat) -> list[int]:
    from transformers import AutoTokenizer

    ids: list[int] = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        list(chat), add_generation_prompt=True, return_dict=False
    )
    return ids


def test_choices_are_as_likely_as_a_plain_pass_says(tiny_lm: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    asked = chats(6)
    for chat, choice in zip(asked, exact(tiny_lm).choose(asked, ["A", "B", "z"], begin="["), strict=True):
        ids = prompt_ids(tiny_lm, chat) + tokenizer("[", add_special_tokens=False)["input_ids"]
        last = logprobs(tiny_lm, ids)[-1]
        wanted = [last[tokenizer.convert_tokens_to_ids(c)].item() for c in ("A", "B", "z")]
        assert choice.logprobs == pytest.approx(wanted, abs=1e-4)
        assert choice.tokens_in == len(ids)
    with pytest.raises(ModelError, match=r"'AB' after '\['.* is no single token"):
        exact(tiny_lm).choose(asked, ["A", "AB"], begin="[")
    assert [exact(tiny_lm).is_token(text, begin="[") for text in ("A", "AB", "")] == [True, False, False]


def test_a_reply_is_as_likely_as_its_tokens(tiny_lm: Path) -> None:
    asked, replies = chats(4), ["flea", "", "a life cycle", "x"]
    for chat, reply, said in zip(asked, replies, exact(tiny_lm).likelihood(asked, replies), strict=True):
        start = prompt_ids(tiny_lm, chat)
        ids = start + _bytes(tiny_lm, reply)
        table = logprobs(tiny_lm, ids)
        total = sum(table[place - 1, ids[place]].item() for place in range(len(start), len(ids)))
        assert said.logprob == pytest.approx(total, abs=1e-3)
        assert (said.tokens, said.tokens_in) == (len(reply), len(start))


def _bytes(folder: Path, text: str) -> list[int]:
    from transformers import AutoTokenizer

    ids: list[int] = AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False)["input_ids"]
    return ids


def test_a_chat_longer_than_the_model_reads_is_counted_in_silence(
    tiny_lm: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("transformers").addHandler(caplog.handler)  # which tells nobody above it
    lm = HF(str(tiny_lm))
    lm._tokenizer.model_max_length = 50
    assert lm.count([{"role": "user", "content": "tea " * 100}]) > lm.context == 50
    lm.parts(["tea " * 100, "more"])
    logging.getLogger("transformers").removeHandler(caplog.handler)
    assert caplog.text == ""
