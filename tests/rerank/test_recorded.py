"""What RankLLM made of 387 recorded replies is what we make of them: plan, parser and repair, end to end.

The replies and the runs are RankLLM's of 2023, kept with the data: RankVicuna, whose replies are mostly whole, and
Vicuna without training, whose replies mostly are not.
"""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.lm.fake import Scripted
from rankpipe.rerank.listwise import Listwise
from rankpipe.trec import read_run

RUNS = [
    ("rankvicuna", "BM25", "output_v2_aug_vicuna_7b", "2023-09-12T18:36:14"),
    ("rankvicuna", "BM25_RM3", "vicuna-7b-checkpoint-800", "2023-09-09T01:27:13"),
    ("zeroshot_vicuna", "BM25", "vicuna-13b-v1.5", "2023-08-19T15:57:43"),
    ("zeroshot_vicuna", "BM25", "vicuna-7b-v1.5", "2023-08-19T14:52:59"),
]


@pytest.mark.parametrize(("file", "retriever", "model", "time"), RUNS)
def test_replay(data_root: Path, file: str, retriever: str, model: str, time: str) -> None:
    pool = data_root / "trec-dl19-pool"
    replies: dict[str, list[str]] = {}
    with gzip.open(data_root / "listwise-windows" / f"{file}_dl19.jsonl.gz", "rt", encoding="utf-8") as f:
        for window in map(json.loads, f):
            if (window["retriever"], window["model"], window["timestamp"][:19]) == (retriever, model, time):
                replies.setdefault(window["qid"], []).append(window["response"])
    first = read_run(pool / "runs" / f"{retriever}.trec").run
    inputs = [
        Ranking.scored(Query(q, "?"), [Hit(Doc(d, "text"), score) for d, score in first[q].items()], k=100)
        for q in replies
    ]
    rounds = zip(*replies.values(), strict=True)
    out = Listwise(Scripted([reply for replies_at_once in rounds for reply in replies_at_once])).apply(inputs)

    there: dict[str, list[str]] = {}  # by rank: RankLLM left its scores in the old order
    recorded = pool / "ref_rerank_runs" / f"{retriever}__{model}_4096_100__{time.replace(':', '')}.trec"
    for line in recorded.read_text().splitlines():
        query, _, doc, *_ = line.split()
        there.setdefault(query, []).append(doc)
    assert len(out) == 43
    assert {r.query.id: [h.doc.id for h in r.hits] for r in out} == there
    assert sum(r.steps[0].calls for r in out) == 9 * 43
    assert sum(r.steps[0].repaired for r in out) == sum(
        sorted(map(int, re.findall(r"\d+", reply))) != list(range(1, 21)) for said in replies.values() for reply in said
    )
