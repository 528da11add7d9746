"""What RankLLM made of its recorded replies is what we make of them: windows, prompts, parser, repair and run, end to
end.

The replies and the runs are RankLLM's of 2023, kept with the data: RankVicuna, whose replies are mostly whole, and
Vicuna without training, whose replies mostly are not.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.lm.fake import Scripted
from rankpipe.measure.ranking import evaluate
from rankpipe.rerank.listwise import Listwise
from rankpipe.rerank.prompts import named
from rankpipe.trec import ordered, read_qrels, read_run, to_run, write_run
from tests.rerank.recorded import VICUNA, Recording, Window, difference, ranked, recording, replayed, vicuna

FOLDER = "ref_prompts_responses"
# file (BM25__...): nDCG@10, how many prompts are ours to the byte, why the others are not. Two have no recorded run.
DL19: dict[str, tuple[float, int, dict[str, int]]] = {
    "output_v2_aug_vicuna_7b_4096_100__2023-09-13T163610": (0.6682, 376, {"broken line": 3, "letters": 8}),
    "output_v2_aug_vicuna_7b_4096_20__2023-09-13T163944": (0.6164, 42, {"letters": 1}),
    "vicuna-7b-v1.5_4096_100__2023-08-19T145259": (0.5058, 367, {"cited": 20}),
}
MORE: dict[str, tuple[float, int, dict[str, int]]] = {
    "output_v2_aug_vicuna_7b_4096_100__2023-09-12T183614": (0.6665, 368, {"cited": 19}),
    "output_v2_aug_vicuna_7b_4096_100__2023-09-13T072142": (0.6840, 376, {"broken line": 3, "letters": 8}),
    "output_v2_aug_vicuna_7b_4096_20__2023-09-13T120110": (0.6171, 42, {"letters": 1}),
    "output_v2_vicuna_7b_4096_100__2023-09-12T184913": (0.6675, 364, {"cited": 23}),
    "vicuna-13b-v1.5_4096_100__2023-08-19T155743": (0.4517, 365, {"cited": 22}),
    "vicuna-13b-v1.5_4096_100__2023-08-19T162526": (0.4517, 365, {"cited": 22}),
    "vicuna-13b-v1.5_4096_100__2023-08-19T165105": (0.5058, 366, {"cited": 21}),
    "vicuna-7b-checkpoint-800_4096_100__2023-09-08T210809": (0.6675, 364, {"cited": 23}),
    "vicuna-7b-checkpoint-800_4096_20__2023-09-10T155823": (0.6168, 41, {"cited": 2}),
}
RUNS_ONLY = [  # of which listwise-windows has the replies: file, retriever, model, time
    ("rankvicuna", "BM25_RM3", "vicuna-7b-checkpoint-800", "2023-09-09T01:27:13"),
]


def held(recorded: Recording, folder: Path) -> tuple[float, Counter[str]]:
    """Replay a recording and hold it against its run: order and value; also why its prompts differ from ours."""
    out, entries = replayed(recorded)
    write_run(folder / "run.trec", out)
    run = read_run(folder / "run.trec").run
    qrels = read_qrels(recorded.path.parents[1] / "qrels" / "test.tsv")
    value = evaluate(run, qrels, ["nDCG@10"]).means["nDCG@10"]
    if recorded.run.exists():
        there = to_run(ranked(recorded.run))
        assert {q: ordered(scores) for q, scores in run.items()} == {q: ordered(there[q]) for q in recorded.windows}
        assert value == evaluate(there, qrels, ["nDCG@10"]).means["nDCG@10"]
    asked = {q: [e for e in entries if e.query == q] for q in recorded.windows}
    assert {q: len(ws) for q, ws in recorded.windows.items()} == {q: len(es) for q, es in asked.items()}
    pairs = [pair for q, ws in recorded.windows.items() for pair in zip(ws, asked[q], strict=True)]
    assert sum(r.steps[0].repaired for r in out) == sum(
        sorted(map(int, re.findall(r"\d+", w.response))) != list(range(1, len(e.docs) + 1)) for w, e in pairs
    )
    return value, Counter(difference(recorded, w, e) for w, e in pairs)


@pytest.mark.parametrize("name", [*DL19, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_dl19(data_root: Path, tmp_path: Path, name: str) -> None:
    recorded = recording(data_root / "trec-dl19-pool" / FOLDER / f"BM25__{name}.json.gz")
    value, kinds = held(recorded, tmp_path)
    expected, same, others = (DL19 | MORE)[name]
    assert round(value, 4) == expected
    assert kinds == {"same": same, **others}
    assert len(recorded.windows) == 43
    assert sum(kinds.values()) == (387 if "_100__" in name else 43)


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("output_v2_aug_vicuna_7b_4096_100__2023-09-13T163610", "rank_vicuna_2023"),
        ("output_v2_aug_vicuna_7b_4096_20__2023-09-13T163944", "rank_vicuna_2023"),
        ("vicuna-7b-v1.5_4096_100__2023-08-19T145259", "vicuna_2023"),
    ],
)
def test_what_we_ship_is_what_was_recorded(data_root: Path, name: str, prompt: str) -> None:
    """Nothing is changed for the replay: RankVicuna's prompt and chat template are what --model rank-vicuna takes."""
    assert recording(data_root / "trec-dl19-pool" / FOLDER / f"BM25__{name}.json.gz").prompt == named(prompt)
    assert VICUNA.rerank == {"use": "listwise", "prompt": "rank_vicuna_2023"}


def test_a_folder_of_another_year(tmp_path: Path) -> None:
    """Queries in another order, ties, lists of other lengths, bad replies; and every difference gets its name."""
    pool, long = tmp_path / "trec-dl20-pool", "word " * 80
    docs = {f"d{i:02}": f"{i} costs 70\u00c2\u00b0 \u00e2\u0080\u0094 [{i}] {long}" for i in range(1, 41)}
    for folder in ("runs", "qrels", "ref_rerank_runs", FOLDER):
        (pool / folder).mkdir(parents=True)
    (pool / "corpus.jsonl").write_text("".join(json.dumps({"_id": d, "text": t}) + "\n" for d, t in docs.items()))
    (pool / "queries.jsonl").write_text("".join(f'{{"_id": "{q}", "text": "what is {q}?"}}\n' for q in ("7", "3")))
    (pool / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n7\td02\t3\n3\td09\t1\n")
    lists = {"3": list(docs), "7": list(docs)[::-1][:25]}
    lines = [f"{q} Q0 {d} {r} 1.0 x\n" for q, ds in lists.items() for r, d in enumerate(ds, 1)]  # all tied
    (pool / "runs" / "BM25.trec").write_text("".join(lines))
    name = "BM25__mine_4096_100__2023-09-12T000000"
    replies = {"7": ["[2] > [2] > [99]", "no idea"], "3": ["", "20 > 1", "[5]>[3]"]}
    made = [Window(f"You are x. USER: y search query: what is {q}?.\n", r) for q, rs in replies.items() for r in rs]
    file = pool / FOLDER / f"{name}.json.gz"

    def record(windows: list[Window]) -> Recording:
        file.write_bytes(gzip.compress((", ".join(json.dumps(asdict(w)) for w in windows) + ", \n").encode()))
        return recording(file)

    out, entries = replayed(record(made))
    assert [h.doc.id for h in out[0].hits][:4] == ["d40", "d39", "d38", "d37"]
    write_run(pool / "ref_rerank_runs" / f"{name}.trec", out)
    asked = [e for q in ("7", "3") for e in entries if e.query == q]
    said = [Window(vicuna(e.messages, False), w.response) for e, w in zip(asked, made, strict=True)]
    assert held(record(said), tmp_path)[1] == {"same": 5}

    def change(window: Window, pattern: str, by: str) -> Window:
        changed = re.sub(pattern, by, window.prompt)
        assert changed != window.prompt
        return replace(window, prompt=changed)

    said[1] = change(said[1], r"(?<= )\((\d+)\)", r"[\1]")  # as it stands in the texts
    said[2] = change(said[2], "( word){60}(?=\n)", "")
    said[3] = change(said[3], "\u00e2\u0080\u0094 ", "\u2014\n")
    said[4] = change(said[4], "costs", "cost")
    assert held(record(said), tmp_path)[1] == {"same": 1, "cited": 1, "cut": 1, "letters": 1, "other": 1}
    said[1] = change(said[1], "( word){60}(?=\n)", "")
    said[3] = replace(said[3], prompt=vicuna(asked[3].messages, False).replace(" word word\n", " word\nword\n"))
    assert held(record(said), tmp_path)[1] == {"same": 1, "cited cut": 1, "cut": 1, "broken line": 1, "other": 1}
    (pool / "ref_rerank_runs" / f"{name}.trec").write_text("".join(lines))
    with pytest.raises(AssertionError):
        held(record(said), tmp_path)


@pytest.mark.slow
def test_every_other_recording_there_is(data_root: Path, tmp_path: Path) -> None:
    """Of other years, too, if they are there: the runs are the same, and no difference in a prompt is unexplained."""
    files = [
        p for p in data_root.glob(f"*/{FOLDER}/*.json.gz") if p.name[6:].removesuffix(".json.gz") not in DL19 | MORE
    ]
    for path in files:
        _, kinds = held(recording(path), tmp_path)
        assert kinds["same"] > 0.8 * sum(kinds.values()), (path.name, kinds)
        assert not kinds["other"], (path.name, kinds)


@pytest.mark.parametrize(("file", "retriever", "model", "time"), RUNS_ONLY)
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
    recorded = ranked(pool / "ref_rerank_runs" / f"{retriever}__{model}_4096_100__{time.replace(':', '')}.trec")
    assert {r.query.id: [h.doc.id for h in r.hits] for r in out} == {
        r.query.id: [h.doc.id for h in r.hits] for r in recorded
    }
    assert (len(out), sum(r.steps[0].calls for r in out)) == (43, 9 * 43)
