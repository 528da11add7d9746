"""What every plan costs and finds, and how good it is when it is ended early: BM25's top 100 on TREC DL19.

python eval/bench/plans.py [--sample 8] [--picture docs/plans.svg]

No language model judges: one that did would have its own taste in plans. Three judges order each window: the judgements
themselves (oracle), the cross-encoder's scores, which are kept beside this file, and the judgements with noise that is
drawn anew for each window. Tokens are SmolLM2's, of the prompts that the plan would send.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from statistics import mean
from time import process_time

import picture
from common import HERE, Row, file
from torch import set_num_threads

from rankpipe import Ranking, evaluate, open_dataset
from rankpipe.disk import write
from rankpipe.lm.hf import HF
from rankpipe.measure import svg
from rankpipe.rerank import plans
from rankpipe.rerank.cross import CrossEncoder
from rankpipe.rerank.fit import Fitted, Passage, fit, written_tokens
from rankpipe.rerank.plans import Planner, Windows
from rankpipe.rerank.prompts import named
from rankpipe.retrieve.runs import RunFile
from rankpipe.trec import Qrels

DATA, RUN, CROSS, MEASURE = "trec-dl19-pool", "runs/BM25.trec", "minilm-l12", "nDCG@10"
WORDS = 300  # of a passage, as listwise shows it
NOISE = 1.0  # standard deviation, in grades (0 to 3)
LIMITS = (0, 1, 2, 4, 6, 9, 14, 20, 30, 50, 70, 100, 150, 200, 300, 500, 1000, 2000, 5000)  # calls a query
DRAWN = (
    "sliding", "tournament", "top-down", "setwise-heap", "setwise-heap of 10", "setwise-bubble",
    "setwise-insertion of 10", "pairwise-heap", "pairwise-bubble", "consensus of 5 sliding, borda",
    "self-consistent top-down, 5",
)  # fmt: skip

Judge = Callable[[int, Sequence[int]], list[int]]  # which query, a window: its positions best first


@dataclass(frozen=True)
class System:
    """A plan, the prompt it is asked with, and over how many hits."""

    plan: Planner
    prompt: str = "rank_zephyr"
    depth: int = 100


SYSTEMS = {
    "single": System(plans.Single()),
    "sliding": System(plans.Sliding()),
    "tournament": System(plans.Tournament()),
    "top-down": System(plans.TopDown()),
    "top-down, no budget": System(plans.TopDown(budget=None)),
    "multipass, 3": System(plans.MultiPass()),
    "shuffled-passes, 3": System(plans.ShuffledPasses()),
    "setwise-heap": System(plans.SetwiseHeap(), "setwise"),
    "setwise-heap of 10": System(plans.SetwiseHeap(size=10), "setwise"),
    "setwise-bubble": System(plans.SetwiseBubble(), "setwise"),
    "setwise-insertion": System(plans.SetwiseInsertion(), "setwise"),
    "setwise-insertion of 10": System(plans.SetwiseInsertion(size=10), "setwise"),
    "pairwise-heap": System(plans.PairwiseHeap(), "pairwise"),
    "pairwise-bubble": System(plans.PairwiseBubble(), "pairwise"),
    "all-pairs, top 20": System(plans.AllPairs(), "pairwise", 20),
    "all-pairs": System(plans.AllPairs(), "pairwise"),
    "self-consistent single, kemeny": System(plans.SelfConsistent()),
    "self-consistent single, borda": System(plans.SelfConsistent(merge=plans.Borda())),
    "self-consistent top-down, 5": System(plans.SelfConsistent(plans.TopDown(), 5)),
    "self-consistent sliding, 5": System(plans.SelfConsistent(plans.Sliding(), 5)),
    "consensus of 5 sliding, kemeny": System(plans.Consensus(shuffles=5)),
    "consensus of 5 sliding, borda": System(plans.Consensus(shuffles=5, merge=plans.Borda())),
    "consensus of 20 sliding, kemeny": System(plans.Consensus()),
}


@dataclass
class Game:
    """One query's plan, played to its end."""

    order: list[int] = field(default_factory=list)
    windows: Windows = field(default_factory=list)
    rounds: int = 0
    seconds: float = 0.0  # of the processor: the plan, and looking up what the judge says


def main() -> None:
    """Play all plans with all judges, and file what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=12, help="windows of each prompt that SmolLM2 is timed with")
    parser.add_argument("--queries", type=int, help="only the first: to try this program")
    parser.add_argument("--systems", nargs="*", default=[*SYSTEMS], choices=[*SYSTEMS], metavar="NAME")
    parser.add_argument("--picture", type=Path, help="where the plot goes (SVG)")
    parser.add_argument("--into", type=Path, default=HERE, help="where the results are filed")
    told = parser.parse_args()
    data = open_dataset(DATA)
    rankings = [*RunFile(DATA, RUN, 100)(data.queries[: told.queries])]
    qrels = {r.query.id: data.qrels[r.query.id] for r in rankings}
    judges = all_judges(rankings, qrels, kept_scores(rankings, HERE / "plans" / "made" / f"{CROSS}.json"))
    prices = Prices(rankings)
    rows, curves = list[Row](), list[Row]()
    games: dict[str, list[Game]] = {}
    for name in told.systems:
        of_judge = {j: [play(SYSTEMS[name], q, judge, len(r.hits)) for q, r in enumerate(rankings)]
                    for j, judge in judges.items()}  # fmt: skip
        games[name] = of_judge["cross-encoder"]
        found = {j: curve(SYSTEMS[name], judges[j], played, rankings, qrels) for j, played in of_judge.items()}
        rows.append(costs(name, games[name], prices) | {f"{j}_{MEASURE}": c["whole"] for j, c in found.items()})
        curves += [{"plan": name, "judge": j, **dict.fromkeys(map(str, LIMITS)), **c} for j, c in found.items()]
        print(rows[-1], flush=True)
    paces = {prompt: pace(prompt, games, prices, told.sample) for prompt in {row["prompt"] for row in rows}}
    for row in rows:
        row["cpu_s"] = round(row["tokens_in"] * paces[row["prompt"]], 1)
    file("plans", rows, told.into)
    file("plans-ended", curves, told.into)
    if told.picture:
        told.picture.write_text(drawn(curves), "utf-8")


def play(system: System, q: int, judge: Judge, hits: int, most: int | None = None) -> Game:
    """Run one plan to its end, or as far as a budget of so many calls goes."""
    game, start = Game(), process_time()
    n = min(hits, system.depth)

    def admit(_: int, windows: Windows) -> int:
        return len(windows) if most is None else min(len(windows), most - len(game.windows))

    def said(asked: list[tuple[int, list[int]]]) -> Windows:
        game.windows += [window for _, window in asked]
        game.rounds += 1
        return [judge(q, window) for _, window in asked]

    [order] = plans.drive([system.plan(n)], said, admit)
    game.order, game.seconds = [*order, *range(n, hits)], process_time() - start
    return game


def all_judges(
    rankings: Sequence[Ranking], qrels: Qrels, scores: Mapping[str, Mapping[str, float]]
) -> dict[str, Judge]:
    """By name; of equals the one that is shown first is taken for the better."""
    grades = [[float(qrels[r.query.id].get(h.doc.id, 0)) for h in r.hits] for r in rankings]
    logits = [[scores[r.query.id][h.doc.id] for h in r.hits] for r in rankings]

    def by(worth: list[list[float]]) -> Judge:
        return lambda q, window: sorted(window, key=lambda p: -worth[q][p])

    def noisy(q: int, window: Sequence[int]) -> list[int]:
        random = Random(hash((q, *window)))  # numbers: the same in every process
        seen = {p: grades[q][p] + random.gauss(0, NOISE) for p in window}
        return sorted(window, key=lambda p: -seen[p])

    return {"oracle": by(grades), "cross-encoder": by(logits), "noisy": noisy}


def kept_scores(rankings: Sequence[Ranking], path: Path) -> dict[str, dict[str, float]]:
    """The cross-encoder's logits by query and document; made where the file is not there or lacks some."""
    scores: dict[str, dict[str, float]] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for ranking in rankings:
        if not {h.doc.id for h in ranking.hits} <= scores.get(ranking.query.id, {}).keys():
            [scored] = CrossEncoder(CROSS)([ranking])
            scores[ranking.query.id] = {h.doc.id: h.score for h in scored.hits}
            with write(path) as f:
                json.dump(scores, f)
    return scores


def curve(
    system: System, judge: Judge, games: Sequence[Game], rankings: Sequence[Ranking], qrels: Qrels
) -> dict[str, float]:
    """nDCG@10 where each query may have n calls, as far as that ends some query's plan early; and of whole plans."""
    most = max(len(g.windows) for g in games)
    found: dict[str, float] = {}
    for n in [*(n for n in LIMITS if n < most), most]:
        ended = [
            r.reordered((g if len(g.windows) <= n else play(system, q, judge, len(r.hits), n)).order)
            for q, (r, g) in enumerate(zip(rankings, games, strict=True))
        ]
        run = {r.query.id: {h.doc.id: h.score for h in r.hits} for r in ended}
        found["whole" if n == most else str(n)] = round(evaluate(run, qrels, [MEASURE]).means[MEASURE], 4)
    return found | {"most_calls": most}


def costs(name: str, games: Sequence[Game], prices: Prices) -> Row:
    """What a query's plan takes, in the mean; the cross-encoder is the judge."""
    system = SYSTEMS[name]
    bills = [[prices.of(system.prompt, q, w) for w in g.windows] for q, g in enumerate(games)]
    return {
        "plan": name,
        "prompt": system.prompt,
        "calls": round(mean(len(g.windows) for g in games), 1),
        "rounds": round(mean(g.rounds for g in games), 1),
        "tokens_in": round(mean(sum(i for i, _ in bill) for bill in bills)),
        "tokens_out": round(mean(sum(o for _, o in bill) for bill in bills)),
        "own_ms": round(1000 * mean(g.seconds for g in games), 2),
    }


def drawn(curves: Sequence[Row]) -> str:
    """nDCG@10 over calls, the cross-encoder judging."""
    series = [
        svg.Series(row["plan"], [(n, row[str(n)]) for n in LIMITS[1:] if row[str(n)] is not None] + [last])
        for row in curves
        if row["judge"] == "cross-encoder" and row["plan"] in DRAWN
        for last in [(row["most_calls"], row["whole"])]
    ]
    ends = svg.Axis("calls a query", 1, 2000, log=True), svg.around([y for s in series for _, y in s.points], MEASURE)
    return picture.lines(series, *ends, f"{MEASURE} of plans that are ended early")


class Prices:
    """Tokens of windows as SmolLM2 is shown them: what stands around the passages, and each passage, counted once.

    That this is what a whole prompt has is checked where the model is timed.
    """

    def __init__(self, rankings: Sequence[Ranking]) -> None:
        self.rankings, self.lm = rankings, HF("smollm2")
        self._around, self._passage, self._reply = cache(self._around), cache(self._passage), cache(self._reply)

    def of(self, prompt: str, q: int, window: Sequence[int]) -> tuple[int, int]:
        """In, and out for a whole reply."""
        shown = sum(self._passage(prompt, q, p) for p in window)
        return self._around(prompt, q, len(window)) + shown, self._reply(prompt, len(window))

    def fitted(self, prompt: str, q: int, window: Sequence[int]) -> Fitted:
        """The whole prompt."""
        docs = [self.rankings[q].hits[p].doc for p in window]
        room = self._reply(prompt, len(window))
        return fit(named(prompt), self.lm, self.rankings[q].query, docs, max_words=WORDS, max_tokens=room)

    def _around(self, prompt: str, q: int, n: int) -> int:
        """With passages of one token."""
        return self.lm.count(named(prompt).render(self.rankings[q].query.text, ["a"] * n))

    def _passage(self, prompt: str, q: int, p: int) -> int:
        """Beyond one token."""
        wording, query = named(prompt), self.rankings[q].query.text
        text = Passage(wording.document(self.rankings[q].hits[p].doc), WORDS).first()
        return self.lm.count(wording.render(query, [text])) - self._around(prompt, q, 1)

    def _reply(self, prompt: str, n: int) -> int:
        return written_tokens(self.lm, named(prompt).longest(n))


def pace(prompt: str, games: Mapping[str, Sequence[Game]], prices: Prices, sample: int) -> float:
    """Processor seconds that SmolLM2 takes for a token in, replies included: a batch of windows that plans asked for.

    On one thread: two that wait for each other would count the waiting, which is what others do to the machine.
    """
    asked = sorted({(q, *w) for name, of in games.items() if SYSTEMS[name].prompt == prompt
                    for q, g in enumerate(of) for w in g.windows})  # fmt: skip
    chosen = Random(0).sample(asked, min(sample, len(asked)))
    chats = [prices.fitted(prompt, q, w) for q, *w in chosen]
    counted = [prices.of(prompt, q, w) for q, *w in chosen]
    assert [c.tokens for c in chats] == [i for i, _ in counted], "tokens do not add up"
    set_num_threads(1)
    prices.lm.complete([chats[0].chat], max_tokens=1)  # loads the model
    start = process_time()
    replies = prices.lm.complete([c.chat for c in chats], max_tokens=max(o for _, o in counted))
    return (process_time() - start) / sum(r.tokens_in for r in replies)


if __name__ == "__main__":
    main()
