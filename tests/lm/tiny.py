"""Tiny models with random weights that know bytes: what tests hold against a plain loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}<assistant>"
BOS, EOS, SIZE = 256, 257, 258


def byte_words(*more: str) -> Any:
    """A tokenizer of single bytes, and of ``more`` as whole tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate([*letters, "<s>", "</s>"])}, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words.decoder = decoders.ByteLevel()
    words.add_tokens(list(more))
    return words


def llama(folder: Path) -> None:
    """A Llama of two layers, with settings for sampling that must not be heeded."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_words(), bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(7)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=SIZE, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=256, bos_token_id=BOS, eos_token_id=EOS,
            initializer_range=0.3,
        )
    )  # fmt: skip
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=5.0, top_k=3, repetition_penalty=2.0, eos_token_id=EOS, max_length=20
    )
    model.save_pretrained(folder)


def mistral(base: Path, folder: Path) -> None:
    """A Mistral of two layers that see a window, with the tokenizer of ``base``."""
    import torch
    from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM

    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    shape = {"vocab_size": SIZE, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "eos_token_id": EOS}
    torch.manual_seed(9)
    MistralForCausalLM(MistralConfig(**shape, **heads, sliding_window=16, initializer_range=0.3)).save_pretrained(
        folder
    )


def t5(folder: Path) -> None:
    """A T5 of two layers whose tokenizer knows true and false as whole tokens."""
    import torch
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    words = byte_words("true", "false")
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", EOS)])
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<s>", eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(8)
    T5ForConditionalGeneration(
        T5Config(
            vocab_size=SIZE + 2, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, pad_token_id=BOS,
            eos_token_id=EOS, decoder_start_token_id=BOS, initializer_factor=2.0,
        )
    ).save_pretrained(folder)  # fmt: skip


def drawn(adapter: Any, base: Path, folder: Path, seed: int) -> Path:
    """The folder of an adapter of ours over a language model, with random numbers in all that is trained of it."""
    import torch
    from transformers import AutoModelForCausalLM

    model = adapter.apply(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32))
    torch.manual_seed(seed)
    for p in model.parameters():
        if p.requires_grad:
            torch.nn.init.normal_(p.data, std=0.05)
    adapter.save(model, folder)
    return folder
