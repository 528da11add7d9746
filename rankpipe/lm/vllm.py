"""Language models run by vLLM in this process: many chats at once, common beginnings computed once."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from rankpipe.aside import muted, settings
from rankpipe.catalog import require
from rankpipe.device import default_device
from rankpipe.errors import ModelError, RecipeError
from rankpipe.lm import Chat, Choice, Completion, Likelihood
from rankpipe.lm.loras import Engine
from rankpipe.lm.templated import Templated
from rankpipe.onnx import read_json
from rankpipe.progress import working

CPU_CACHE_BYTES = 2 << 30  # a GPU's is what the weights leave
BROKEN = (ValueError, RuntimeError, OSError)  # what engines raise, besides vLLM's own errors
SETTINGS = {  # where the environment does not say otherwise, while an engine is made
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}


class VLLM(Templated):
    """A causal language model with a chat template. Nothing is loaded before it is first used.

    Prompts are token for token those of :class:`~rankpipe.lm.hf.HF`, replies are greedy, and log-probabilities are of
    the whole vocabulary, as there. What many chats begin with is computed once, for as long as the memory for it lasts
    (``cached_tokens``). In bfloat16 a prompt that was partly computed before can get other log-probabilities than a new
    one, by a rounding, and where two tokens are that close another reply.

    The engine runs in this process, so that the same call makes the same batches. It starts others where
    ``VLLM_ENABLE_V1_MULTIPROCESSING=1`` is in the environment or ``tensor_parallel_size`` is above 1: then a program
    that is not behind ``if __name__ == "__main__":`` is run once more by each of them, and fails. The command line is
    safe.

    :param model: an alias, a Hugging Face id or a folder.
    :param adapter: a LoRA adapter's folder in PEFT's layout, put on top of the model.
    :param dtype: "auto" is bfloat16 on a GPU and on CPUs with instructions for it, else float32.
    :param context: use no more of the model's context than this many tokens: less memory for keys and values.
    :param pattern: a regular expression that each completion is made to match, as far as its length allows: no prose
        where ``"\\[\\d+\\]( > \\[\\d+\\])*"`` is all that is wanted.
    :param enforce_eager: no compilation and no CUDA graphs: starts sooner, runs slower. None is eager on the CPU only.
    :param tensor_parallel_size: GPUs that share the model.
    :param engine: more options, as ``vllm.LLM`` calls them: ``{quantization: fp8, gpu_memory_utilization: 0.5}``. On
        the CPU 2 GiB hold keys and values, if neither this (kv_cache_memory_bytes) nor the environment
        (VLLM_CPU_KVCACHE_SPACE) says otherwise.
    :param thinking: tokens that a written reply may have beside its own, to think first; not together with a pattern,
        which a thought would have to match.
    :raises MissingExtra: If vLLM is not installed.
    """

    together = 64  # queries
    at_once = 256  # chats
    component, extra = "vllm", "vllm"

    def __init__(
        self,
        model: str = "smollm2",
        adapter: Path | None = None,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        context: int | None = None,
        pattern: str | None = None,
        enforce_eager: bool | None = None,
        tensor_parallel_size: int = 1,
        engine: Mapping[str, Any] | None = None,
        thinking: int = 0,
    ) -> None:
        require("vllm", name=self.component, extra=self.extra)
        if tensor_parallel_size < 1 or (context is not None and context < 1):
            raise RecipeError([f"context={context}, tensor_parallel_size={tensor_parallel_size}: must be 1 or more"])
        if pattern and thinking:
            raise RecipeError([f"pattern={pattern!r}, thinking={thinking}: give one of them"])
        super().__init__(model, adapter, dtype, context, thinking=thinking)
        self.pattern, self.enforce_eager, self.tensor_parallel_size = pattern, enforce_eager, tensor_parallel_size
        self.engine = dict(engine or {})
        self.cached_tokens = 0  # of all chats so far: those that were not computed again

    def with_adapter(self, adapter: Path | None) -> Self:
        """The same engine under another LoRA, or under none; it has room for those named before its first request."""
        engine, other = self._engine, super().with_adapter(adapter)
        engine.told(other._worn)
        return other

    def ready(self) -> None:
        """Load it.

        :raises ModelError: If it cannot be loaded.
        """
        self._engine.llm(self._started)

    def complete(self, chats: Sequence[Chat], *, max_tokens: int) -> Sequence[Completion]:
        """One greedy completion for each chat.

        :raises ModelError: If a chat is too long for the context, or the engine fails.
        """
        prompts = [self._encode(chat) for chat in chats]
        made = self._run(prompts, self._room(max_tokens), structured_outputs=self._structure)
        new = [list(output.outputs[0].token_ids) for output in made]
        return [Completion(self._said(ids), len(prompt), len(ids)) for prompt, ids in zip(prompts, new, strict=True)]

    def choose(self, chats: Sequence[Chat], choices: Sequence[str], *, begin: str = "") -> Sequence[Choice]:
        """The log-probabilities of ``choices`` as the next token, from one forward pass for each chat.

        :raises ModelError: If a choice is no single token after ``begin``, there are more than 128, or a chat is too
            long.
        """
        wanted = self._labels(choices, begin)
        prompts = self._starts(chats, begin)
        made = self._run(prompts, 1, logprob_token_ids=wanted)
        rated = [output.outputs[0].logprobs[0] for output in made]
        return [
            Choice(tuple(row[token].logprob for token in wanted), len(prompt))
            for prompt, row in zip(prompts, rated, strict=True)
        ]

    def likelihood(self, chats: Sequence[Chat], replies: Sequence[str]) -> Sequence[Likelihood]:
        """The log-probability of each reply after its chat; here nothing is taken from what was computed before.

        :raises ModelError: If a chat with its reply is too long.
        """
        said = [self._tokens(reply) for reply in replies]
        prompts = [start + reply for start, reply in zip(self._starts(chats), said, strict=True)]
        made = self._run(prompts, 1, prompt_logprobs=0)  # no others than the prompt's own tokens
        return [
            Likelihood(_sum(output.prompt_logprobs, prompt, len(reply)), len(reply), len(prompt) - len(reply))
            for output, prompt, reply in zip(made, prompts, said, strict=True)
        ]

    @cached_property
    def identity(self) -> str:
        """As of ``hf``, and what else decides replies here."""
        more = [json.dumps(part, sort_keys=True) for part in (self.pattern, self.engine) if part]
        return " ".join(["vllm", super().identity, *more])

    def _run(self, prompts: Sequence[list[int]], max_tokens: int, **asked: Any) -> list[Any]:
        """vLLM's output for each prompt, of up to ``max_tokens``, thoughts included."""
        self._refuse_long(prompts, max_tokens - self.thinking)
        if not prompts:
            return []
        engine, vllm = self._engine.llm(self._started), self._need("vllm")
        asked |= {"temperature": 0, "max_tokens": max_tokens, "detokenize": False}
        asked |= {"stop_token_ids": self._stops, "ignore_eos": True}  # the same ones, told once
        try:
            with working(f"{self.model}: {len(prompts)} chats"), self._stance():
                made: list[Any] = engine.generate(
                    [{"prompt_token_ids": ids} for ids in prompts],
                    vllm.SamplingParams(**asked),
                    use_tqdm=False,
                    lora_request=self._engine.request(self._worn),
                )
        except (*BROKEN, self._need("vllm.exceptions").VLLMError) as error:
            raise ModelError(f"{self.model}: vLLM: {error}") from error
        self.cached_tokens += sum(output.num_cached_tokens or 0 for output in made)
        return made

    @cached_property
    def _engine(self) -> Engine:
        """One for this and all that come of it by :meth:`with_adapter`."""
        engine = Engine()
        engine.told(self._worn)
        return engine

    def _started(self, loras: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
        device = default_device()
        options = {
            "dtype": self.number_format,
            "max_model_len": self.context + self.thinking,
            "enforce_eager": self._eager,
            "tensor_parallel_size": self.tensor_parallel_size,
            "generation_config": "vllm",  # the model's own would sample
            "enable_prefix_caching": True,
        }
        if device == "cpu" and "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
            options["kv_cache_memory_bytes"] = CPU_CACHE_BYTES
        options |= {**loras, **self.engine}
        folder = str(self._folder)
        with working(f"{self.model}: vLLM is loading it"), settings(SETTINGS), muted() as said:
            try:
                return self._need("vllm").LLM(folder, **options), options
            except (*BROKEN, TypeError) as error:
                raise ModelError(f"{self.model}: vLLM cannot load it: {error}{said()}") from error

    @property
    def _eager(self) -> bool:
        return default_device() == "cpu" if self.enforce_eager is None else self.enforce_eager

    def _stance(self) -> AbstractContextManager[Any]:
        """What is eager compiles nothing: vLLM's sampler would, and that needs a compiler on the CPU, and its time."""
        stance: AbstractContextManager[Any] = self._need("torch").compiler.set_stance(
            "force_eager" if self._eager else "default"
        )
        return stance

    @cached_property
    def _structure(self) -> Any:
        if self.pattern is None:
            return None
        return self._need("vllm.sampling_params").StructuredOutputsParams(regex=self.pattern)

    @cached_property
    def _stops(self) -> list[int]:
        """The tokens that end a reply: the tokenizer's, and the model's own (one, several or none)."""
        said = read_json(self._folder / "generation_config.json").get("eos_token_id")
        return sorted({self._tokenizer.eos_token_id, *(said if isinstance(said, list) else [said])} - {None})


def _sum(rated: Sequence[Mapping[int, Any] | None], tokens: Sequence[int], last: int) -> float:
    """The log-probabilities of the ``last`` tokens of a prompt, together."""
    places = range(len(tokens) - last, len(tokens))
    return float(sum(row[tokens[i]].logprob for i in places if (row := rated[i])))
