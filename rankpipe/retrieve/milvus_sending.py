"""Documents on their way to Milvus: encoded, kept here, and their vectors sent, shard after shard."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from rankpipe.data import Doc
from rankpipe.errors import ArtefactError
from rankpipe.retrieve import milvus_options as options
from rankpipe.retrieve.collection import DENSE, Collection
from rankpipe.retrieve.docs import Docs, write_docs
from rankpipe.retrieve.grown import Grown, cut_texts
from rankpipe.retrieve.milvus_recall import recall
from rankpipe.retrieve.numbered import State, sent
from rankpipe.retrieve.parts import Part, folders
from rankpipe.retrieve.rows import Encoders

SHARD = 2048  # documents encoded and sent between two savings
TOLD = ("identity", "model", "dimension", "metric", "collection")  # facts of every segment


def send(docs: Iterable[Doc], draft: Part, recipe: dict[str, Any], encoders: Encoders, collection: Collection) -> None:
    """Make a segment of documents, whose vectors Milvus has under the serial numbers that come next.

    :param draft: of the segment, which keeps which numbers were sent.
    :raises ArtefactError: If Milvus lacks some of what it took.
    """
    root = draft.folder.parent
    state = State.of(root)
    first, done = sent(draft.folder) if draft.first else state.next, 0
    grown, stream = Grown(draft.folder, encoders.identity), write_docs(docs, draft)
    if not grown.documents and ((draft.first and not first) or not collection.exists()):
        collection.anew(encoders.fields, options.kinds(recipe))
    collection.load()
    while part := list(islice(stream, SHARD)):
        if done >= grown.documents:
            rows, shortened = encoders.rows(part)
            serials = np.arange(first + done, first + done + len(part))
            collection.upsert([{"serial": n, **row} for n, row in zip(serials.tolist(), rows, strict=True)])
            grown.append({"cut": shortened}, {"serials": serials})
        done += len(part)
    since = 0 if draft.first else first
    if lacks := first + done - since - collection.count(first=since, end=first + done):
        for begun in folders(root):  # so that all is sent again
            shutil.rmtree(begun)
        raise ArtefactError(f"{collection.where}: Milvus lacks {lacks} documents that it took; do it again")
    draft.facts |= recall(collection, recipe, encoders.dense, Docs(draft.folder), first) if draft.first else {}
    replace(state, next=first + done).keep(root)
    told = (encoders.identity, encoders.names, encoders.fields.get(DENSE), recipe["metric"], state.collection)
    draft.facts |= {**dict(zip(TOLD, told, strict=True)), "truncated_texts": cut_texts(draft.folder)}
