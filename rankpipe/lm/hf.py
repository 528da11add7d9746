"""Language models run by transformers in this process, on the CPU or one GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from rankpipe import weights
from rankpipe.catalog import require
from rankpipe.device import default_device
from rankpipe.errors import RecipeError
from rankpipe.lm import Chat, Choice, Completion, Likelihood
from rankpipe.lm.attention import Looks, attention_to
from rankpipe.lm.decode import Greedy, Pick, decode
from rankpipe.lm.forward import forward, generated, read
from rankpipe.lm.held import Held, hold
from rankpipe.lm.local import FEWEST, PASS, batched, in_batches, whole
from rankpipe.lm.orders import Arranged, Form, Spelling, Writing
from rankpipe.lm.prefix import Past, shared, sharing
from rankpipe.lm.templated import Templated
from rankpipe.progress import working

T = TypeVar("T")
CPU_TOKENS = 2048  # read at once on a CPU; of prompts longer than half of it, one


class HF(Templated):
    """A causal language model with a chat template. Nothing is loaded before it is first used, and the weights of a
    model once for all that ask it in this process: LoRA adapters take turns on them (:mod:`rankpipe.lm.held`).

    Replies are greedy: of the model's own generation settings only the stop tokens are kept, no sampling, no
    repetition penalty. What chats of one call begin with alike is computed once
    (:func:`~rankpipe.lm.prefix.shared`), where that pays and the model's layers all attend to everything before; they
    are sorted by length and padded.

    :param model: an alias, a Hugging Face id or a folder.
    :param adapter: a PEFT adapter's folder, put on top of the model.
    :param dtype: "auto" is bfloat16 on a GPU and on CPUs with instructions for it, elsewhere float32, which is
        several times faster than emulated bfloat16.
    :param device: as torch names it; the first GPU if there is one, else the CPU.
    :param device_map: spreads the layers of a large model over what there is: "auto", "balanced" or a map by name, as
        accelerate has it; takes the place of ``device``.
    :param context: use no more of the model's context than this many tokens (RankLLM: 4096).
    :param batch_tokens: tokens in memory at once, padding and replies included. One chat goes in even if it is longer.
        On a CPU prompts are read fewer at a time, which is faster (:mod:`rankpipe.lm.decode`).
    :param guard: text in a passage or query that looks like a token of the chat template (``<|im_end|>``) is kept from
        being one; False only to measure what that is worth.
    :raises MissingExtra: If torch, transformers or, for an adapter, peft or, for a map, accelerate is not installed.
    """

    together = 16  # queries
    component, extra = "hf", "lm"

    def __init__(
        self,
        model: str = "smollm2",
        adapter: Path | None = None,
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        device: str | None = None,
        context: int | None = None,
        batch_tokens: int = 16_384,
        guard: bool = True,
        device_map: str | Mapping[str, str | int] | None = None,
        thinking: int = 0,
    ) -> None:
        extra = ["peft"] * bool(adapter) + ["accelerate"] * bool(device_map)
        for module in ("torch", "transformers", *extra):
            require(module, name=self.component, extra=self.extra)
        if batch_tokens < 1 or (context is not None and context < 1):
            raise RecipeError([f"context={context}, batch_tokens={batch_tokens}: must be 1 or more"])
        if device and device_map:
            raise RecipeError([f"device={device!r}, device_map={device_map!r}: give one of them"])
        super().__init__(model, adapter, dtype, context, guard, thinking)
        self.device, self.device_map, self.batch_tokens = device, device_map, batch_tokens

    def ready(self) -> None:
        """Load it.

        :raises ModelError: If it cannot be loaded.
        """
        _ = self._model

    def complete(self, chats: Sequence[Chat], *, max_tokens: int) -> Sequence[Completion]:
        """One greedy completion for each chat.

        :raises ModelError: If a chat is too long for the context, or a batch for the memory.
        """
        prompts, room = [self._encode(chat) for chat in chats], self._room(max_tokens)
        self._refuse_long(prompts, max_tokens)

        def write(batch: Sequence[int], past: Past) -> list[Completion]:
            return self._generate([prompts[i] for i in batch], room, past)

        return self._batches(prompts, room, write, [p[:-1] for p in prompts], writing=True)

    def arrange(self, chats: Sequence[Chat], form: Form) -> Sequence[Completion]:
        """For each chat the reply that greedy decoding makes of those that the form allows: every item once
        (:class:`~rankpipe.lm.orders.Arranged`).

        :raises ModelError: If a chat is too long for the context, the model would think first, or an order cannot be
            written item by item.
        """
        stop = min(self._held.bare.generation_config.eos_token_id)
        spelling = Spelling.of(form, self._tokens, stop, self.model)
        prompts = [[*start, *spelling.begin] for start in self._starts(chats)]
        self._refuse_long(prompts, spelling.room - len(spelling.begin))

        def write(batch: Sequence[int], past: Past) -> list[Completion]:
            before = len(spelling.begin)
            return [
                Completion(form.text(w.order), len(prompts[i]) - before, before + len(w.written))
                for i, w in zip(batch, self._ordered([prompts[i] for i in batch], spelling, past), strict=True)
            ]

        return self._batches(prompts, spelling.room, write, [p[:-1] for p in prompts], writing=True)

    def choose(self, chats: Sequence[Chat], choices: Sequence[str], *, begin: str = "") -> Sequence[Choice]:
        """The log-probabilities of ``choices`` as the next token, from one forward pass for each chat.

        :raises ModelError: If a choice is no single token after ``begin``, or a chat is too long.
        """
        wanted = self._labels(choices, begin)
        prompts = self._starts(chats, begin)
        self._refuse_long(prompts, 1)

        def rate(batch: Sequence[int], past: Past) -> list[Choice]:
            logprobs = self._logprobs([prompts[i] for i in batch], 1, past)[:, -1, wanted].tolist()  # (B, choices)
            return [Choice(tuple(row), len(prompts[i])) for i, row in zip(batch, logprobs, strict=True)]

        return self._batches(prompts, 1, rate, [p[:-1] for p in prompts])

    def likelihood(self, chats: Sequence[Chat], replies: Sequence[str]) -> Sequence[Likelihood]:
        """The log-probability of each reply after its chat, from one forward pass.

        :raises ModelError: If a chat with its reply is too long.
        """
        torch = self._need("torch")
        said = [self._tokens(reply) for reply in replies]
        prompts = [start + reply for start, reply in zip(self._starts(chats), said, strict=True)]
        self._refuse_long(prompts, 0)

        def rate(batch: Sequence[int], past: Past) -> list[Likelihood]:
            keep = max(len(said[i]) for i in batch) + 1
            logprobs = self._logprobs([prompts[i] for i in batch], keep, past)  # (B, keep, vocabulary)
            rows = []
            for i, row in zip(batch, logprobs, strict=True):
                n = len(said[i])
                tokens = torch.tensor(said[i], device=row.device)[:, None]
                total = row[-n - 1 : -1].gather(1, tokens).sum().item() if n else 0.0
                rows.append(Likelihood(total, n, len(prompts[i]) - n))
            return rows

        return self._batches(prompts, 0, rate, [p[: -len(r) - 1] for p, r in zip(prompts, said, strict=True)])

    def attention(self, start: Sequence[int], ends: Sequence[Sequence[int]]) -> list[Looks]:
        """How much each token of ``start`` is looked at from each of ``ends``: see :func:`attention_to`.

        :raises ModelError: If the tokens do not fit into the context or the memory, or the model's attention is not to
            be had.
        """
        longest = max(map(len, ends))
        self._refuse_long([[*start]], longest)

        def look(*_: object) -> list[list[Looks]]:
            return [attention_to(self._model, start, ends)]

        return self._batches([[*start]], longest, look, [[]])[0]

    def _batches(
        self,
        prompts: Sequence[list[int]],
        more: int,
        work: Callable[[Sequence[int], Past], list[T]],
        heads: Sequence[list[int]],
        writing: bool = False,
    ) -> list[T]:
        """What ``work`` makes of each prompt; it is given the positions of a batch, and what they all begin with.

        :param heads: as much of each prompt as may be computed for several at once.
        :param writing: replies are written, together as far as the memory goes; otherwise prompts are only read.
        """
        if not prompts:
            return []
        with self._held.wearing(self._worn) as model:  # loaded here: what is made inside may be no ordinary tensor
            groups = shared(heads) if sharing(model) else [(0, [*range(len(prompts))])]
            depths = {i: depth for depth, rows in groups for i in rows}
            past = lru_cache(maxsize=1)(lambda tokens: Past(model, tokens))  # a group's batches follow each other

            def one(batch: Sequence[int]) -> list[T]:
                first = batch[0]
                return work(batch, past(tuple(prompts[first][: depths[first]])))

            limit, a_pass = (self.batch_tokens, FEWEST) if writing else self._reading
            return in_batches(prompts, one, limit, self.model, more, [rows for _, rows in groups], a_pass)

    def _generate(self, prompts: Sequence[list[int]], max_tokens: int, past: Past) -> list[Completion]:
        if sharing(self._model):
            pick = Greedy(len(prompts), max_tokens, self._model.generation_config.eos_token_id)
            self._decode(prompts, past, pick)
            written = pick.written
        else:
            written = generated(self._model, prompts, past, max_new_tokens=max_tokens)
        return [self._completion(p, new) for p, new in zip(prompts, written, strict=True)]

    def _ordered(self, prompts: Sequence[list[int]], spelling: Spelling, past: Past) -> list[Writing]:
        if sharing(self._model):
            pick = Arranged(len(prompts), spelling)
            self._decode(prompts, past, pick)
            return pick.replies
        start = max(map(len, prompts))

        def allowed(_: int, ids: Any) -> list[int]:
            return Writing(spelling, ids[start:].tolist()).choices or [spelling.stop]

        most = spelling.room + 1
        written = generated(self._model, prompts, past, max_new_tokens=most, prefix_allowed_tokens_fn=allowed)
        return [Writing(spelling, new) for new in written]

    def _decode(self, prompts: Sequence[list[int]], past: Past, pick: Pick) -> None:
        lengths = [len(p) for p in prompts]
        reading = batched([n - len(past.tokens) for n in lengths], 0, *self._reading)
        decode(self._model, lambda part: read(self._model, [prompts[i] for i in part], past), lengths, reading, pick)

    def _logprobs(self, prompts: Sequence[list[int]], keep: int, past: Past) -> Any:
        """Of every token at the last ``keep`` places: (B, keep, vocabulary), float32. What is computed and thrown
        away is the rest's vocabulary, which is the larger part of a small model's memory.
        """
        return forward(self._model, prompts, keep, past, past.cache(len(prompts))).float().log_softmax(-1)

    @cached_property
    def _reading(self) -> tuple[int, int]:
        """Tokens that are read at once, padding included; and what a forward pass costs beside them, in tokens."""
        on_cpu = self._model.device.type == "cpu"
        return (min(self.batch_tokens, CPU_TOKENS), PASS) if on_cpu else (self.batch_tokens, FEWEST)

    def _completion(self, prompt: Sequence[int], new: list[int]) -> Completion:
        stops = set(self._model.generation_config.eos_token_id)
        length = next((i + 1 for i, token in enumerate(new) if token in stops), len(new))
        return Completion(self._said(new[:length]), len(prompt), length)

    @property
    def _model(self) -> Any:
        return self._held.under(self._worn)

    @cached_property
    def _held(self) -> Held:
        device = str(self.device_map) if self.device_map else self.device or default_device()
        what = (self._folder, weights.identity(self._folder), self.number_format, device)
        return hold(what, self._worn, self._weights)

    def _greedy(self, model: Any) -> Any:
        """The model, whose own generation settings are forgotten but for the stop tokens."""
        said = model.generation_config.eos_token_id  # None, one or several
        stops = {self._tokenizer.eos_token_id, *(said if isinstance(said, list) else [said])} - {None}
        pad = self._tokenizer.pad_token_id
        model.generation_config = self._need("transformers").GenerationConfig(
            do_sample=False, eos_token_id=sorted(stops), pad_token_id=min(stops) if pad is None else pad
        )
        return model

    def _weights(self) -> Any:
        torch = self._need("torch")
        spread: dict[str, Any] = {"device_map": self.device_map} if self.device_map else {}
        with working(f"{self.model}: loading"):
            kind = self._need("transformers").AutoModelForCausalLM
            dtype = getattr(torch, self.number_format)
            model = whole(kind, self._folder, name=self.model, dtype=dtype, **spread)
            return self._greedy(model if spread else model.to(self.device or default_device())).eval()
