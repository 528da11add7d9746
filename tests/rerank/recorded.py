"""What RankLLM asked and was answered in 2023: reading its recordings, and asking again. Bound to no year or model."""

from __future__ import annotations

import gzip
import json
import re
import unicodedata
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from jinja2 import Template

from rankpipe import weights
from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.datasets import Dataset, open_dataset
from rankpipe.lm import Chat
from rankpipe.lm.fake import Fake
from rankpipe.rerank import ledger
from rankpipe.rerank.listwise import Listwise
from rankpipe.rerank.prompts import Prompt, named
from rankpipe.rerank.template import Said
from rankpipe.trec import read_run

[VICUNA] = (m for m in weights.known() if m.alias == "rank-vicuna")
SHOWN = Template(VICUNA.chat_template)
NAME = re.compile(r"(?P<retriever>\w+?)__(?P<model>.+)_\d+_(?P<depth>\d+)__(?P<time>[\dT-]+)\.json\.gz")
ASKED = re.compile(r"(?:search query|relevance to query): (.*?)\. ?(?:\n|ASSISTANT: Okay)")
UNSURE = r"[^!-~]|['\"]"
REPAIRED = "2023-09-13"  # from this day on texts go through ftfy, and [12] becomes (12)


@dataclass(frozen=True)
class Window:
    """One prompt and its reply, as recorded."""

    prompt: str
    response: str


@dataclass(frozen=True)
class Recording:
    """One file: what a model was asked about a retriever's candidates, query by query."""

    path: Path
    windows: dict[str, list[Window]]  # query id -> in the order asked
    prompt: Prompt  # the same wording in ours
    asks: bool  # whether it ends with "ASSISTANT:", as it does since 13 September 2023

    @property
    def name(self) -> re.Match[str]:
        """Retriever, model, depth and time."""
        return parts(self.path)

    @property
    def run(self) -> Path:
        """Where the run is that came of it."""
        return self.path.parents[1] / "ref_rerank_runs" / self.path.name.replace(".json.gz", ".trec")


def parts(path: Path) -> re.Match[str]:
    found = NAME.fullmatch(path.name)
    assert found, f"{path.name}: not named RETRIEVER__MODEL_CONTEXT_DEPTH__TIME.json.gz"
    return found


@cache
def collection(pool: Path) -> tuple[dict[str, Doc], dict[str, Query], Dataset]:
    """Documents and queries by id, and the whole."""
    whole = open_dataset(pool)
    return {d.id: d for d in whole.docs()}, {q.id: q for q in whole.queries}, whole


def recording(path: Path) -> Recording:
    """Read a file: JSON objects with commas between them, and one after the last."""
    text = gzip.decompress(path.read_bytes()).decode("utf-8").rstrip().rstrip(",")
    windows = [Window(w["prompt"], w["response"]) for w in json.loads(f"[{text}]")]
    known = {letters(q.text): q.id for q in collection(path.parents[1])[1].values()}
    by_query: dict[str, list[Window]] = {}
    for window in windows:
        by_query.setdefault(known[letters(asked(window.prompt))], []).append(window)
    first = windows[0].prompt
    return Recording(path, by_query, wording(first, parts(path)["time"]), first.endswith("ASSISTANT:"))


def wording(prompt: str, time: str) -> Prompt:
    """Ours in which a recorded prompt is told: a prompt that we ship, or with what was otherwise for some days.

    Until noon of 13 September 2023 the trained models had system messages of RankLLM's; until the day before, letters
    were not repaired and no blank stood at the end. On one evening of August there was one more turn.
    """
    if "Received passage [1]." in prompt:
        ours = named("vicuna_2023")
        *most, last = ours.messages
        counted = Said("assistant", "Okay, {count} passages are provided.")
        return replace(ours, messages=(*most, counted, last)) if "passages are provided." in prompt else ours
    ours = named("rank_vicuna_2023")
    system, user = ours.messages
    if prompt.startswith(system.text):
        return ours
    if time < REPAIRED:
        user = Said("user", user.text.rstrip())
    return replace(ours, repair=time >= REPAIRED, messages=(Said("system", prompt.partition(" USER: ")[0]), user))


def asked(prompt: str) -> str:
    """The query of a prompt."""
    found = ASKED.search(prompt)
    assert found, f"no query in {prompt[:300]!r}"
    return found[1]


def letters(text: str) -> str:
    """What is left of a text by every cleaning."""
    return "".join(re.findall(r"[a-z0-9]+", text.lower()))


def vicuna(chat: Chat, asks: bool) -> str:
    """A chat as RankVicuna is shown it, by the template of our table."""
    return SHOWN.render(messages=chat, add_generation_prompt=asks)


class Replies(Fake):
    """Answers each query's prompts with its recorded replies, one after the other."""

    def __init__(self, windows: dict[str, list[Window]]) -> None:
        super().__init__(context=10**6)
        self.said = {letters(asked(ws[0].prompt)): iter(ws) for ws in windows.values()}

    def reply(self, text: str) -> str:
        return next(self.said[letters(asked(text))]).response


def replayed(recorded: Recording) -> tuple[list[Ranking], list[ledger.Entry]]:
    """What we make of the recorded replies, and what we asked for them."""
    pool = recorded.path.parents[1]
    docs, queries, _ = collection(pool)
    run = read_run(pool / "runs" / f"{recorded.name['retriever']}.trec").run
    inputs = [  # in the file's order, which is RankLLM's, ties or not
        Ranking(queries[q], tuple(Hit(docs[d], -float(r)) for r, d in enumerate(run[q]))) for q in recorded.windows
    ]
    entries: list[ledger.Entry] = []
    with ledger.written(entries.append):
        reranker = Listwise(Replies(recorded.windows), prompt=recorded.prompt, depth=int(recorded.name["depth"]))
        return list(reranker.apply(inputs)), entries


def ranked(path: Path) -> list[Ranking]:
    """A recorded run by its ranks: RankLLM left the scores in the order they had before."""
    run = read_run(path).run
    return [Ranking(Query(q, "?"), tuple(Hit(Doc(d, ""), -float(r)) for r, d in enumerate(run[q]))) for q in run]


def difference(recorded: Recording, window: Window, entry: ledger.Entry) -> str:
    """Why a recorded prompt is not the one we made: "same" if it is, to the byte.

    "cited" and "cut": ours would be the same without its guard, or with fewer words, to the byte. RankLLM's first
    prompts have ``[12]`` in passages, and some are cut by tokens that only its models' tokenizer counts. "broken line":
    blanks differ, for RankLLM repairs the whole prompt once more, which ends a line in a passage. "letters": those that
    are not ASCII differ, or quotation marks: RankLLM's repair (ftfy) guessed otherwise than ours.
    """
    ours = vicuna(entry.messages, recorded.asks)
    if window.prompt == ours:
        return "same"
    docs, queries, _ = collection(recorded.path.parents[1])
    for prompt in (recorded.prompt, replace(recorded.prompt, guard=False)):
        texts = [prompt.document(docs[d]).split() for d in entry.docs]
        for words in range(300, 0, -1):
            chat = prompt.render(queries[entry.query].text, [" ".join(text[:words]) for text in texts])
            if vicuna(chat, recorded.asks) == window.prompt:
                return " ".join(["cited"] * (not prompt.guard) + ["cut"] * (words < 300))
    for name, form, blur in (("broken line", "NFC", r"\s"), ("letters", "NFC", UNSURE), ("letters", "NFKC", UNSURE)):
        there, here = (re.sub(blur, "", unicodedata.normalize(form, text)) for text in (window.prompt, ours))
        if there == here:
            return name
    return "other"
