"""Labels made once by a reranker, to train others on: a TREC run whose scores they are, with its manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankpipe import store, trec
from rankpipe.data import Ranking
from rankpipe.errors import ArtefactError, DataError
from rankpipe.journal import Kept
from rankpipe.stage import Reranker
from rankpipe.train.labels import FILE, TAUGHT
from rankpipe.train.split import some
from rankpipe.trec import Qrels, Run, ordered

KEPT = "kept"  # what is done of labels that are being made


def pool(run: Run, qrels: Qrels, depth: int, queries: int | None = None) -> Run:
    """What is labelled: the first hits of each query, and below them what is relevant and not among them.

    :param queries: so many of the judged queries; all of the run if None.
    """
    made, taken = {}, run if queries is None else some(qrels, queries)
    for query, scores in run.items():
        if query not in taken:
            continue
        hits = ordered(scores)[:depth]
        more = [d for d, grade in sorted(qrels.get(query, {}).items()) if grade > 0 and d not in hits]
        made[query] = {doc: 1.0 / rank for rank, doc in enumerate([*hits, *more], 1)}
    return made


def teach(
    rankings: Sequence[Ranking],
    stage: Reranker,
    folder: Path,
    *,
    node: dict[str, Any],
    name: str,
    identity: str,
    force: bool = False,
) -> None:
    """Have a reranker label rankings, all hits of them; one that is killed goes on where it stopped.

    :param folder: of the labels: an artefact.
    :param node: the reranker as a recipe has it.
    :param name: of the collection.
    :param identity: everything that decides what the reranker says.
    :param force: replace labels that were made otherwise.
    :raises DataError: If there are no rankings.
    :raises ArtefactError: If the folder is something else's, or holds labels that were made otherwise.
    :raises RecipeError: If the reranker has a depth that cannot be changed.
    """
    if not rankings:
        raise DataError("no queries with hits: nothing to label")
    asked = json.dumps([[r.query.id, r.query.text, [h.doc.id for h in r.hits]] for r in rankings])
    data = store.Data(name, hashlib.sha256(asked.encode()).hexdigest())
    recipe = {"use": "teacher", "stage": node}
    store.claim(folder, TAUGHT, beside=KEPT)
    if not force:
        _refuse_others(folder, recipe, data, identity)
    kept = Kept(stage.whole(), folder / KEPT / "said.jsonl", identity)
    made = kept.through(list(rankings), "teacher")
    with store.publish(folder, kind=TAUGHT, recipe=recipe, data=data) as draft:
        lowered = trec.write_run(draft.folder / FILE, made, tag="teacher")
        labels = sum(len(r.hits) for r in made)
        draft.facts |= {"queries": len(made), "labels": labels, "scores_lowered": lowered, "identity": identity}


def _refuse_others(folder: Path, recipe: dict[str, Any], data: store.Data, identity: str) -> None:
    """:raises ArtefactError: If the folder holds whole labels of another reranker, or of other queries or hits."""
    try:
        there = store.open_artefact(folder, kind=TAUGHT)
    except ArtefactError:  # none, or damaged ones
        return
    unlike = {
        "by another reranker or another setting of it": there.recipe != recipe,
        "of other queries or hits": there.data != data,
        "by other weights": there.facts.get("identity") != identity,
    }
    if why := [what for what, is_so in unlike.items() if is_so]:
        raise ArtefactError(
            f"{folder}: holds labels that were made {why[0]}; name another folder, or --force replaces them"
        )
