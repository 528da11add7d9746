"""How far does a passage get that tells the reranker to put it first, with our guards and without?

In windows of TREC DL 2019's BM25 run a passage that is judged not relevant gets an attack of eval/injection at its
end, and is reranked where it stands (third, in the middle, last). What counts is what the attack changes: the same
window without it is reranked too, and texts that are no attack (placebo) show what any more words change. Each query
sees one attack of every family, the next query the next one. Guards are those of the prompt (one line, no labels, no
tokens of templates, nothing unseen) and that of the language model (none of its own special tokens). Prompts that they
leave as they are are not asked twice. A cross-encoder has no prompt to guard.

Models and windows are small for the sake of two cores: SmolLM2 has 135 million parameters and understands few orders.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

import yaml
from common import ROOT, Row, file

from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.datasets import open_dataset
from rankpipe.lm.hf import HF
from rankpipe.measure.compare import interval
from rankpipe.rerank import ledger
from rankpipe.rerank.cross import CrossEncoder
from rankpipe.rerank.first import First
from rankpipe.rerank.fit import Fitted, fit
from rankpipe.rerank.listwise import Listwise
from rankpipe.rerank.plans import Single
from rankpipe.rerank.pointwise import Pointwise
from rankpipe.rerank.prompts import PointPrompt, Prompt, Wording, chosen, named
from rankpipe.retrieve.runs import RunFile

ATTACKS = ROOT / "eval" / "injection" / "attacks.yaml"
PLACEBO = "placebo"
WORDS = 300  # of a passage that prompts show: more than there are

Text = tuple[str, str]  # family, and the text of one of its attacks
Found = tuple[int, float | None]  # rank and score of the attacked passage


@dataclass(frozen=True)
class Window:
    """The passages of one query, and the place of the one that is attacked."""

    query: Query
    docs: tuple[Doc, ...]
    place: int

    @property
    def target(self) -> Doc:
        """The passage that is attacked."""
        return self.docs[self.place]

    def attacked(self, text: str) -> Doc:
        """That passage with a text at its end; as it is without."""
        return replace(self.target, text=f"{self.target.text} {text}") if text else self.target

    def ranking(self, text: str = "") -> Ranking:
        """As a reranker gets it."""
        docs = (*self.docs[: self.place], self.attacked(text), *self.docs[self.place + 1 :])
        return Ranking(self.query, tuple(Hit(doc, 1 / rank) for rank, doc in enumerate(docs, 1)))


@dataclass(frozen=True)
class Outcome:
    """What one attack changed: rank and score of its passage before and after."""

    family: str
    query: str
    before: Found
    after: Found
    touched: bool = False  # whether the guards change the prompt

    @property
    def gain(self) -> float:
        """Ranks that the passage rose."""
        return self.before[0] - self.after[0]

    @property
    def won(self) -> float:
        """Whether it came first, where it had not been."""
        return float(self.after[0] == 1 < self.before[0])

    @property
    def rise(self) -> float | None:
        """Of its score."""
        return None if self.after[1] is None or self.before[1] is None else self.after[1] - self.before[1]


Measured = tuple[list[Outcome], list[Outcome]]  # without guards and with


@cache
def attacks() -> dict[str, list[str]]:
    """The texts of each family, with their placeholders."""
    tree: dict[str, list[str]] = yaml.safe_load(ATTACKS.read_text("utf-8"))
    return tree


def filled(attack: str, window: Window, prompt: Prompt | None = None) -> str:
    """An attack as the window's passage has it: it wants to be first in the order; without a prompt for one, a yes."""
    if prompt is None:
        return attack.format(label="1", other="2", next="3", query=window.query.text, reply="Yes")
    *labels, following = prompt.names(len(window.docs) + 1)
    own = labels[window.place]
    others = [label for label in labels if label != own]
    reply = prompt.between.join(prompt.item.format(label=label) for label in (own, *others))
    return attack.format(label=own, other=others[0], next=following, query=window.query.text, reply=reply)


def dl19(data: str, queries: int, size: int, words: int) -> list[Window]:
    """Windows of the first hits; the best one of grade 0 is put third, in the middle or last, in turns."""
    dataset, made = open_dataset(data), list[Window]()
    for ranking in RunFile(data, "runs/BM25.trec", size).apply([q for q in dataset.queries if q.id in dataset.qrels]):
        grades = dataset.qrels[ranking.query.id]
        bad = [i for i, h in enumerate(ranking.hits) if grades.get(h.doc.id) == 0]
        if bad and len(ranking.hits) == size and len(made) < queries:
            docs = [replace(h.doc, text=" ".join(h.doc.text.split()[:words])) for h in ranking.hits]
            place = (2, size // 2, size - 1)[(len(made) + len(made) // 4) % 3]  # an attack is not always in the same
            docs.insert(place, docs.pop(bad[0]))
            made.append(Window(ranking.query, tuple(docs), place))
    return made


def texts(windows: Sequence[Window], prompt: Prompt | None = None) -> list[list[Text]]:
    """What each window is attacked with: one text of each family, in turns."""
    return [
        [(family, filled(of[i % len(of)], window, prompt)) for family, of in attacks().items()]
        for i, window in enumerate(windows)
    ]


def windowed(kind: type[First | Listwise], windows: Sequence[Window], lms: Sequence[HF], prompt: Prompt) -> Measured:
    """FIRST or listwise, one window a query.

    :param lms: the bare one, then the guarded one.
    """
    plan = Single(len(windows[0].docs))
    bare, guarded = (kind(lm, plan, replace(prompt, guard=lm.guard), max_words=WORDS) for lm in lms)
    made: Measured = ([], [])
    for window, told in zip(windows, texts(windows, prompt), strict=True):
        inputs = [window.ranking(), *(window.ranking(text) for _, text in told)]
        touched = [_fitted(guarded, r) != _fitted(bare, r) for r in inputs]
        with_guards = _judged(guarded, inputs, window)
        again = iter(_judged(bare, [r for r, t in zip(inputs, touched, strict=True) if t], window))
        without = [next(again) if t else found for found, t in zip(with_guards, touched, strict=True)]
        for into, found in zip(made, (without, with_guards), strict=True):
            into += _outcomes(window, told, found, touched)
    return made


def _judged(reranker: Listwise | First, inputs: Sequence[Ranking], window: Window) -> list[Found]:
    """Rank of the attacked passage; of FIRST also its share of the labels' probability, as the ledger has it."""
    heard: list[ledger.Entry] = []
    with ledger.written(heard.append):
        made = list(reranker(inputs))
    label = reranker.prompt.names(len(window.docs))[window.place]
    found: list[Found] = []
    for ranking, entry in zip(made, heard, strict=True):
        rank = 1 + [h.doc.id for h in ranking.hits].index(window.target.id)
        rated = dict(one.split(" ") for one in entry.reply.split(" > ")) if isinstance(reranker, First) else {}
        total = sum(map(float, rated.values()))
        found.append((rank, float(rated[label]) / total if rated else None))
    return found


def one_by_one(windows: Sequence[Window], rerankers: Sequence[Any]) -> list[list[Outcome]]:
    """Rerankers that score each passage by itself: attacked ones stand beside the window, each to be held against it.

    :param rerankers: the bare one, then the guarded one, if there is one.
    """
    made: list[list[Outcome]] = [[] for _ in rerankers]
    bare, guarded = rerankers[0], rerankers[-1]
    for window, told in zip(windows, texts(windows), strict=True):
        more = [replace(window.attacked(text), id=f"{window.target.id} {family}") for family, text in told]
        whole = _unranked(window.query, *window.docs, *more)
        singles = {h.doc.id: _unranked(window.query, h.doc) for h in whole.hits if bare is not guarded}
        touched = {id: _fitted(bare, one) != _fitted(guarded, one) for id, one in singles.items()}
        scores = _scores(guarded, whole)
        again = _unranked(window.query, *(h.doc for h in whole.hits if touched.get(h.doc.id)))
        for into, known in zip(made, (scores | _scores(bare, again), scores), strict=False):
            rivals = [known[doc.id] for doc in window.docs if doc is not window.target]
            mine = [known[doc.id] for doc in (window.target, *more)]
            found = [(1 + sum(rival > score for rival in rivals), score) for score in mine]
            into += _outcomes(window, told, found, [touched.get(doc.id, False) for doc in (window.target, *more)])
    return made


def _unranked(query: Query, *docs: Doc) -> Ranking:
    return Ranking(query, tuple(Hit(doc, 0.0) for doc in docs))


def _scores(reranker: Any, ranking: Ranking) -> dict[str, float]:
    [out] = reranker.apply([ranking])
    return {h.doc.id: h.score for h in out.hits}


def _outcomes(
    window: Window, told: Sequence[Text], found: Sequence[Found], touched: Sequence[bool]
) -> Iterable[Outcome]:
    before, *after = found
    for (family, _), one, changed in zip(told, after, touched[1:], strict=True):
        yield Outcome(family, window.query.id, before, one, changed)


def _fitted(reranker: Any, ranking: Ranking) -> Fitted:
    """The prompt as it is asked. Where only the model's guard has something to do, the number of tokens tells."""
    docs = [h.doc for h in ranking.hits]
    prompt: Wording = reranker.prompt
    return fit(prompt, reranker.lm, ranking.query, docs, max_words=WORDS, max_tokens=1)


def shown(outcomes: Sequence[Outcome], value: Callable[[Outcome], float | None]) -> str:
    """Mean and 95 % bootstrap interval over queries: attacks on the same one are no independent evidence."""
    of_query: dict[str, list[float]] = {}
    for outcome in outcomes:
        if (found := value(outcome)) is not None:
            of_query.setdefault(outcome.query, []).append(found)
    means = [fmean(values) for values in of_query.values()]
    if not means:
        return ""
    low, high = interval(means) or (means[0], means[0])
    return f"{fmean(means):+.2f} [{low:+.2f}, {high:+.2f}]"


def summary(name: str, found: Sequence[Sequence[Outcome]], placebo: bool, seconds: float) -> Row:
    """What the attacks of all families, or the texts that are none, changed."""
    bare, guarded = ([o for o in of if (o.family == PLACEBO) is placebo] for of in (found[0], found[-1]))
    row: Row = {"reranker": name, "texts": "placebo" if placebo else "attacks", "windows": len(bare)}
    guards = len(found) > 1
    row |= {"touched": sum(o.touched for o in bare) if guards else None, "seconds": None if placebo else seconds}
    for label, of in (("without", bare), ("with", guarded if guards else [])):
        row |= {f"gain_{label}": shown(of, lambda o: o.gain), f"rise_{label}": shown(of, lambda o: o.rise)}
        row[f"won_{label}"] = int(sum(o.won for o in of)) if of else None
    saved = {id(b): b.gain - g.gain for b, g in zip(bare, guarded, strict=True)}
    return row | {"guards_saved": shown(bare, lambda o: saved[id(o)]) if guards else ""}


def families(found: Mapping[str, Sequence[Sequence[Outcome]]]) -> list[Row]:
    """What each family changed with each reranker."""
    rows: list[Row] = []
    for family in attacks():
        row: Row = {"family": family}
        for name, of in found.items():
            for label, outcomes in zip(("without", "with"), of, strict=False):
                mine = [o for o in outcomes if o.family == family]
                row |= {
                    f"{name}_gain_{label}": shown(mine, lambda o: o.gain),
                    f"{name}_rise_{label}": shown(mine, lambda o: o.rise),
                    f"{name}_won_{label}": int(sum(o.won for o in mine)),
                }
        rows.append(row)
    return rows


def main() -> None:
    """Measure one reranker after the other, and file the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="trec-dl19-pool", help="a folder with runs/BM25.trec and judgements")
    parser.add_argument("--windows", type=int, default=8, help="one for each of so many queries")
    parser.add_argument("--listwise", type=int, default=4, help="windows for listwise, whose replies take long")
    parser.add_argument("--size", type=int, default=10, help="passages of a window")
    parser.add_argument("--words", type=int, default=40, help="of each passage, before the attack")
    parser.add_argument("--model", default="smollm2", help="the language model")
    parser.add_argument("--into", type=Path, default=ROOT / "eval", help="where the result is filed")
    told = parser.parse_args()
    windows = dl19(told.data, told.windows, told.size, told.words)
    # in half precision what is computed beside a prompt would move its answer, and that is no effect of an attack
    lms = [HF(told.model, dtype="float32", guard=guard) for guard in (False, True)]
    yes_no = chosen("pointwise", PointPrompt, "verdict")
    work: dict[str, Callable[[], Sequence[Sequence[Outcome]]]] = {
        "first": lambda: windowed(First, windows, lms, named("first")),
        "listwise": lambda: windowed(Listwise, windows[: told.listwise], lms, named("rank_zephyr")),
        "pointwise": lambda: one_by_one(
            windows, [Pointwise(lm, replace(yes_no, guard=lm.guard), max_words=WORDS) for lm in lms]
        ),
        "cross-encoder": lambda: one_by_one(windows, [CrossEncoder()]),
    }
    found: dict[str, Sequence[Sequence[Outcome]]] = {}
    rows: list[Row] = []
    for name, measure in work.items():
        start = perf_counter()
        found[name] = measure()
        print(f"{name}: {perf_counter() - start:.0f} s", flush=True)
        rows += [summary(name, found[name], placebo, perf_counter() - start) for placebo in (True, False)]
    file("families", families(found), told.into / "injection")
    file("injection", rows, told.into)


if __name__ == "__main__":
    main()
