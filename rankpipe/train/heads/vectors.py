"""The head of a bi-encoder: a score is the inner product of two vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import numpy as np

from rankpipe import st, weights
from rankpipe.catalog import need, require
from rankpipe.data import Ranking, Step
from rankpipe.errors import RecipeError
from rankpipe.lm.local import in_batches
from rankpipe.rerank.budget import Budget
from rankpipe.rerank.scores import ByScore, rescored
from rankpipe.retrieve.encode import Encoder, Vectors, encoder, prompts
from rankpipe.stage import Reranker
from rankpipe.train.examples import Example
from rankpipe.train.heads.head import Batch, Dtype, Head, Numbers, Outputs, Ranker, at_rest, cut, on, spread, targets

BATCH_TOKENS = 16_384  # read at once when it is evaluated


class BiEncoder(ByScore):
    """Scores hits by the inner product of query's and document's vectors, as a ``dense`` index would.

    :param model: an alias, a Hugging Face id or a folder.
    :param depth: hits of a ranking that are scored.
    :param max_length: tokens of a text that are read.
    :param backend: what computes (:func:`~rankpipe.retrieve.encode.encoder`); by default the fastest here.
    :raises RecipeError: If ``depth`` is below 1.
    """

    budget = Budget()

    def __init__(
        self, model: str = "bge-small", depth: int = 100, max_length: int | None = None, backend: str = "auto"
    ) -> None:
        if depth < 1:
            raise RecipeError([f"depth: {depth} hits; expected 1 or more"])
        self.model, self.depth, self.max_length, self.backend = model, depth, max_length, backend

    @cached_property
    def encoder(self) -> Encoder:
        """What makes the vectors."""
        return encoder(self.model, self.max_length, self.backend)

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        """All texts of the rankings together, each once."""
        start = perf_counter()
        texts = list(dict.fromkeys(h.doc.contents for r in batch for h in r.hits[: self.depth]))
        places = {text: i for i, text in enumerate(texts)}
        queries = self.encoder.encode_queries([r.query.text for r in batch])  # (Q, D)
        vectors = self.encoder.encode_docs(texts)  # (N, D)
        step = Step(self.name, seconds=(perf_counter() - start) / max(len(batch), 1))
        made = []
        for ranking, query in zip(batch, queries, strict=True):
            rows = vectors[[places[h.doc.contents] for h in ranking.hits[: self.depth]]]
            made.append(rescored(ranking, (rows @ query).tolist(), self.model).noting(step))
        return made


@dataclass(frozen=True)
class BiEncoderHead(Head):
    """For ``dense`` indexes, and :class:`BiEncoder`: query and document each make a vector.

    Over any encoder of sentence-transformers, with its prompts and pooling. What is made is a whole model; an adapter
    is merged into it, and kept beside it. Cosines are small numbers: losses of scores want a ``temperature`` such as
    0.05. ``in-batch`` takes the documents of all queries of a batch, but for a query those that are judged relevant to
    it and not in its list.

    :param max_length: tokens of a text; the model's own limit if None.
    :raises MissingExtra: If sentence-transformers is not installed.
    """

    max_length: int | None = None

    vectors: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require("sentence_transformers", name="bi-encoder-head", extra="st")

    def over(self, model: str) -> OfVectors:
        """Over an encoder."""
        return OfVectors(model, self.max_length)


class OfVectors(Ranker):
    """A ranker by vectors."""

    whole: ClassVar[bool] = True

    def __init__(self, model: str, max_length: int | None) -> None:
        self.model, self.most = model, max_length

    @cached_property
    def sentence(self) -> Any:
        """The whole encoder; the model that is tuned is its first part."""
        return st.load("SentenceTransformer", weights.resolve(self.model), "float32", self.most)

    def load(self, dtype: Numbers, *, empty: bool = False) -> Any:
        """The transformer inside."""
        if empty:
            self.sentence = st.load(
                "SentenceTransformer", weights.resolve(self.model), "float32", self.most, empty=True
            )
        self.sentence.to(on(empty) or "cpu", getattr(need("torch", name="bi-encoder-head", extra="train"), dtype))
        return self.sentence[0].auto_model

    def batch(self, examples: Sequence[Example], *, reply: bool = False, together: bool = False) -> Batch:  # noqa: ARG002
        """All queries, then all documents; ``together``, each of these once."""
        own = prompts(self.sentence.prompts, weights.find(self.model))
        if together:
            docs, made = _together(examples)
        else:
            docs, made = [doc.contents for e in examples for doc in e.docs], targets(examples)
        texts = [own.query + e.query.text for e in examples] + [own.document + text for text in docs]
        read = self._read(texts)
        full = sum(len(row) >= self.sentence.max_seq_length for row in read)
        return made | self._padded(read) | cut(full, len(read))

    def forward(self, model: Any, batch: Batch) -> Outputs:
        """Inner products."""
        made, mask = self._vectors(model, batch), batch["mask"]
        queries, docs = made[: len(mask)], made[len(mask) :]
        if "together" in batch:
            return Outputs(queries @ docs.T)
        return Outputs(spread((queries.repeat_interleave(mask.sum(1), 0, output_size=len(docs)) * docs).sum(1), mask))

    @contextmanager
    def stage(self, model: Any, depth: int) -> Iterator[Reranker]:
        """:class:`BiEncoder` over this model."""
        made = BiEncoder(self.model, depth)
        with at_rest(model):
            made.__dict__["encoder"] = _Lent(self, model)
            yield made

    def encoded(self, model: Any, texts: Sequence[str]) -> Vectors:
        """The vectors of texts."""
        read = self._read(list(texts))

        def work(places: Sequence[int]) -> list[Any]:
            batch = {k: v.to(model.device) for k, v in self._padded([read[i] for i in places]).items()}
            return list(self._vectors(model, batch).float().cpu().numpy())

        return np.array(in_batches(read, work, BATCH_TOKENS, self.model), np.float32)

    def save(self, model: Any, folder: Path, whole: bool) -> None:  # noqa: ARG002
        """The whole encoder, merged."""
        self.sentence.save_pretrained(str(folder), create_model_card=False)

    def node(self, folder: str, adapted: bool, dtype: Dtype) -> dict[str, Any]:  # noqa: ARG002
        """:class:`BiEncoder`; ``dense`` takes the same model."""
        return {"use": "bi-encoder", "model": folder, **({"max_length": self.most} if self.most else {})}

    def _read(self, texts: Sequence[str]) -> list[list[int]]:
        told = self.sentence.tokenizer(list(texts), truncation=True, max_length=self.sentence.max_seq_length)
        return list(told["input_ids"])

    def _padded(self, read: Sequence[list[int]]) -> Batch:
        return dict(self.sentence.tokenizer.pad({"input_ids": list(read)}, return_tensors="pt"))

    def _vectors(self, model: Any, batch: Batch) -> Any:
        told = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        features = {"token_embeddings": model(**told).last_hidden_state, **told}
        for module in list(self.sentence)[1:]:
            features = module.to(model.device)(features)
        return features["sentence_embedding"].float()


class _Lent:
    """An encoder over a model that somebody else holds."""

    def __init__(self, ranker: OfVectors, model: Any) -> None:
        self.ranker, self.model, self.cut = ranker, model, list[bool]()
        self.name = self.identity = ranker.model
        self.prompts = prompts(ranker.sentence.prompts, weights.find(ranker.model))

    @property
    def dimension(self) -> int:
        """Of the vectors."""
        return int(self.ranker.sentence.get_embedding_dimension())

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """The vectors of questions."""
        return self.ranker.encoded(self.model, [self.prompts.query + text for text in texts])

    def encode_docs(self, texts: Sequence[str]) -> Vectors:
        """The vectors of documents."""
        return self.ranker.encoded(self.model, [self.prompts.document + text for text in texts])


def _together(examples: Sequence[Example]) -> tuple[list[str], Batch]:
    """The texts of all examples, each once, and every query's label of each: the best it has for it, or else 0.

    What a query's list has not, though it is relevant to it, is masked. That goes by ids, so that a text which is
    called so in another collection is masked, too: one negative less.
    """
    torch = need("torch", name="bi-encoder-head", extra="train")
    ids: dict[str, set[str]] = {}  # by text
    for e in examples:
        for doc in e.docs:
            ids.setdefault(doc.contents, set()).add(doc.id)
    labels, mask = [], []
    for e in examples:
        own = dict(sorted(zip((d.contents for d in e.docs), e.labels, strict=True), key=itemgetter(1)))  # the best last
        labels.append([own.get(text, 0.0) for text in ids])
        mask.append([text in own or called.isdisjoint(e.relevant) for text, called in ids.items()])
    made = torch.tensor(labels, dtype=torch.float32)
    return [*ids], {"labels": made, "mask": torch.tensor(mask), "together": made.new_ones(1)}
