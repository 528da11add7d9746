"""Heads of language models: what is trained is what the reranker would see and do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from rankpipe.data import Doc, Hit, Query, Ranking  # noqa: E402
from rankpipe.errors import ModelError, RecipeError  # noqa: E402
from rankpipe.train.adapters.factors import layers  # noqa: E402
from rankpipe.train.adapters.lora import LoRA  # noqa: E402
from rankpipe.train.adapters.merging import merge  # noqa: E402
from rankpipe.train.examples import Example  # noqa: E402
from rankpipe.train.heads.head import Head, Outputs  # noqa: E402
from rankpipe.train.heads.pairs import CrossEncoderHead  # noqa: E402
from rankpipe.train.heads.points import PointwiseHead  # noqa: E402
from rankpipe.train.heads.vectors import BiEncoderHead  # noqa: E402
from rankpipe.train.heads.windows import FirstHead, ListwiseHead  # noqa: E402
from rankpipe.train.losses import InBatch, PermutationLM, RankNet, Sum, first_loss  # noqa: E402
from rankpipe.train.objective import Objective  # noqa: E402

WORDS = ["tides follow the moon", "bread needs flour and time", "the moon is far", "cats sleep", "rivers run"]
LISTS = [
    Example(Query("a", "why are there tides?"), tuple(Doc(f"d{i}", w) for i, w in enumerate(WORDS)), (2, 0, 1, 0, 0)),
    Example(Query("b", "how is bread made?"), tuple(Doc(f"e{i}", w, "T") for i, w in enumerate(WORDS[:3])), (0, 1, 0)),
]


def ranking(e: Example) -> Ranking:
    return Ranking(e.query, tuple(Hit(doc, 1 / (i + 1)) for i, doc in enumerate(e.docs)))


@pytest.mark.parametrize("head", [FirstHead(), PointwiseHead()], ids=lambda h: type(h).__name__)
def test_scores_are_those_of_the_reranker(head: Any, tiny_chat: Path) -> None:
    ranker = head.over(str(tiny_chat))
    model = ranker.load("float32")
    own = model.train().generation_config
    scores = ranker.forward(model, batch := ranker.batch(LISTS)).scores.detach()
    assert torch.equal(scores != 0, batch["mask"]) or isinstance(head, FirstHead)
    with ranker.stage(model, 10) as stage:
        made = stage.run([ranking(e) for e in LISTS])
    for row, e, reranked in zip(scores, LISTS, made, strict=True):
        ours = {doc.id: s for doc, s in zip(e.docs, row.tolist(), strict=False)}
        assert [h.doc.id for h in reranked.hits] == sorted(ours, key=lambda d: -ours[d])
        if isinstance(head, PointwiseHead):
            assert [h.score for h in reranked.hits] == pytest.approx(sorted(ours.values(), reverse=True), abs=1e-4)
    assert model.training
    assert model.generation_config is own


def test_a_list_scores_the_same_whatever_it_is_padded_by(tiny_chat: Path) -> None:
    ranker = FirstHead().over(str(tiny_chat))
    model = ranker.load("float32").eval()
    both = ranker.forward(model, ranker.batch(LISTS, reply=True)).scores
    alone = ranker.forward(model, ranker.batch(LISTS[1:])).scores
    assert torch.allclose(both[1, :3], alone[0], atol=1e-5)


@pytest.mark.parametrize(
    ("head", "said"), [(FirstHead(), "[A] > [C] > [B] > [D] > [E]"), (ListwiseHead(), "[1] > [3] > [2] > [4] > [5]")]
)
def test_only_the_order_is_learned(head: Any, said: str, tiny_chat: Path) -> None:
    ranker = head.over(str(tiny_chat))
    batch = ranker.batch(LISTS, reply=True)
    words = ranker.lm._tokenizer
    learned = batch["tokens"][0][batch["tokens"][0] >= 0]
    assert words.decode(learned) == said + words.eos_token
    whole = words.decode(batch["input_ids"][0][batch["attention_mask"][0] == 1])
    with ranker.stage(ranker.load("float32"), 10) as stage:
        shown = stage.fit(LISTS[0].query, LISTS[0].docs).chat
    assert whole == ranker.lm._text(shown) + said + words.eos_token


def test_the_loss_of_the_order_is_that_of_transformers(tiny_chat: Path) -> None:
    ranker = ListwiseHead().over(str(tiny_chat))
    model = ranker.load("float32").eval()
    batch = ranker.batch(LISTS, reply=True)
    objective = Objective(PermutationLM(), ListwiseHead())
    ours, _ = objective(ranker.forward(model, batch), batch, objective.counts([batch]))
    labels = torch.full_like(batch["input_ids"], -100)
    labels[:, -batch["tokens"].shape[1] :] = batch["tokens"]
    told = {k: batch[k] for k in ("input_ids", "attention_mask", "position_ids")}
    assert ours.item() == pytest.approx(model(**told, labels=labels).loss.item(), rel=1e-5)


def test_parts_of_a_step_add_up_to_the_loss_of_all(tiny_chat: Path) -> None:
    ranker, loss = FirstHead().over(str(tiny_chat)), first_loss()
    model = ranker.load("float32").eval()
    objective = Objective(loss, FirstHead())
    parts = [ranker.batch([e], reply=True) for e in LISTS]
    counts = objective.counts(parts)
    summed = sum(objective(ranker.forward(model, b), b, counts)[0] for b in parts)
    whole = ranker.batch(LISTS, reply=True)
    out = ranker.forward(model, whole)
    at_once = loss(out.scores, whole["labels"], whole["mask"], out.logits, whole["tokens"])
    assert summed.item() == pytest.approx(at_once.item(), rel=1e-5)


@pytest.mark.parametrize("head", [FirstHead(max_words=4), PointwiseHead(max_words=4)], ids=lambda h: type(h).__name__)
def test_passages_that_are_cut_are_counted(head: Any, tiny_chat: Path) -> None:
    """Of the first list bread's, of the second, with their title, all."""
    assert head.over(str(tiny_chat)).batch(LISTS)["cut"].tolist() == [[4, 8]]


def test_texts_that_are_cut_are_counted(tiny_bert: Path) -> None:
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(tiny_bert)
    pairs = [len(tokens(e.query.text, doc.contents)["input_ids"]) for e in LISTS for doc in e.docs]
    texts = [e.query.text for e in LISTS] + [doc.contents for e in LISTS for doc in e.docs]
    alone = [len(tokens(text)["input_ids"]) for text in texts]
    for head, lengths, limit in ((CrossEncoderHead(12), pairs, 12), (BiEncoderHead(6), alone, 6)):
        full = sum(length >= limit for length in lengths)
        assert 0 < full < len(lengths)
        assert head.over(str(tiny_bert)).batch(LISTS)["cut"].tolist() == [[full, len(lengths)]]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_bug_what_was_drawn_is_not_saved_with_an_adapter(tiny_bert: Path, tmp_path: Path) -> None:
    """Plain PEFT put the LoRA of a pooler that the files have not over another pooler, drawn anew."""
    import transformers

    ranker = CrossEncoderHead().over(str(bare(tiny_bert, tmp_path / "bare")))
    batch, method = ranker.batch(LISTS), LoRA(rank=2)
    model = method.apply(ranker.load("float32"))
    assert not [path for path, _ in layers(model) if "pooler" in path]
    trained = {n for n, p in model.named_parameters() if p.requires_grad and "modules_to_save" in n}
    assert {"pooler.dense" in name for name in trained} == {True, False}
    optimizer = torch.optim.AdamW(method.groups(model, 1e-2))
    for _ in range(3):
        ranker.forward(model, batch).scores.square().sum().backward()
        optimizer.step()
    method.save(model, tmp_path / "adapter")
    merged = merge(model)[0].eval()
    for seed in (1, 2):
        torch.manual_seed(seed)
        kind = transformers.AutoModelForSequenceClassification
        base = kind.from_pretrained(tmp_path / "bare", num_labels=1)
        again = peft.PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
        both = [ranker.forward(m, batch).scores.detach() for m in (merged, again)]
        assert torch.allclose(*both, atol=1e-5)


def bare(model: Path, folder: Path) -> Path:
    """An encoder without the pooler."""
    import transformers

    transformers.AutoModel.from_pretrained(model, add_pooling_layer=False).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


DOCS = [Doc("7", "the moon pulls the sea"), Doc("8", "yeast makes bread rise"), Doc("9", "cats sleep all day")]


def test_bug_one_id_is_one_document(tiny_bert: Path) -> None:
    """Of two collections it is two; one text is one, whatever it is called, with the best label that it has."""
    other = Doc("7", "flour, water, salt")
    cats = (Doc("b", DOCS[2].text), Doc("c", DOCS[2].text))
    lists = [
        Example(Query("0:a", "tides?"), (DOCS[0], DOCS[2]), (1, 0), ("7",)),
        Example(Query("1:b", "bread?"), (other, *cats), (1, 1, 0), ("7", "b")),
    ]
    ranker = BiEncoderHead().over(str(tiny_bert))
    batch = ranker.batch(lists, together=True)
    assert batch["labels"].tolist() == [[1, 0, 0], [0, 1, 1]]
    assert batch["mask"].tolist() == [[True, True, False], [False, True, True]]  # what the other collection calls "7"
    with ranker.stage(ranker.load("float32"), 10) as stage:
        both = stage.run([ranking(e) for e in lists])
        alone = [stage.run([ranking(e)])[0] for e in lists]
    for one, two in zip(both, alone, strict=True):
        assert [(h.doc, h.score) for h in one.hits] == [(h.doc, pytest.approx(h.score)) for h in two.hits]


def test_bug_what_is_known_to_be_relevant_is_a_negative(tiny_bert: Path) -> None:
    """That it was not drawn into the query's list makes it none."""
    lists = [
        Example(Query("a", "tides?"), (DOCS[0], DOCS[2]), (1, 0), ("7", "8")),
        Example(Query("b", "bread?"), (DOCS[1], DOCS[2]), (1, 0), ("8",)),
    ]
    batch = BiEncoderHead().over(str(tiny_bert)).batch(lists, together=True)
    assert batch["labels"].tolist() == [[1, 0, 0], [0, 0, 1]]
    assert batch["mask"].tolist() == [[True, True, False], [True, True, True]]


def test_bug_a_margin_makes_a_sum_of_a_mean() -> None:
    """With scores alike, by which lists once were counted, a margin below 0 leaves out all negatives."""
    pytest.importorskip("sentence_transformers")
    loss, labels, mask = InBatch(margin=-0.1), torch.eye(3), torch.ones(3, 3, dtype=torch.bool)
    batch, objective = {"labels": labels, "mask": mask}, Objective(loss, BiEncoderHead())
    counts = objective.counts([batch])
    assert counts.tolist() == [3]
    total, _ = objective(Outputs(5 * labels), batch, counts)
    assert total == loss(5 * labels, labels, mask) > 0
    assert loss.total(0 * labels, labels, mask)[1] == 3


@pytest.mark.parametrize(
    ("loss", "head", "said"),
    [
        (PermutationLM(), PointwiseHead(), "PointwiseHead has not"),
        (RankNet(), ListwiseHead(), "gives no scores"),
        (Sum({"a": PermutationLM(), "b": InBatch()}), FirstHead(), "bi-encoder-head"),
        ("ranknet", FirstHead(), "no loss"),
    ],
)
def test_what_a_head_does_not_give_cannot_be_learned(loss: Any, head: Head, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        Objective(loss, head)


def test_a_head_of_language_models_over_an_encoder_says_what_to_take(embedded: Callable[[str], Path]) -> None:
    embedded("minilm")
    with pytest.raises(
        ModelError, match=r"^minilm: its files lack .* take head: cross-encoder-head or bi-encoder-head"
    ):
        FirstHead().over("minilm").load("float32")
