"""The options of the verbs that rerank: what is reranked, and with what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankpipe.cli import options, show

if TYPE_CHECKING:
    from rankpipe.data import Ranking


Cache = Annotated[Path | None, typer.Option("--cache", help="Keep the language model's answers here; ask none twice.")]


@dataclass(frozen=True)
class Given:
    """What is reranked."""

    run: Annotated[Path, typer.Argument(help="A TREC run (its texts come from --data), or .jsonl with texts.")]
    data: options.DataOrNone = None
    split: options.Split = "test"
    topics: options.Topics = None

    def rankings(self) -> list[Ranking]:
        """Each query with its hits and their texts.

        :raises CommandError: If nothing says where the texts are.
        :raises DataError: If something is not there or malformed.
        """
        from rankpipe.datasets import rankings, read_requests
        from rankpipe.errors import CommandError
        from rankpipe.trec import read_run

        if self.run.name.removesuffix(".gz").endswith(".jsonl"):
            return list(read_requests(self.run))
        if self.data is None:
            raise CommandError([f"{self.run}: a TREC run has no texts; say where they are with --data"])
        read = read_run(self.run)
        for oddity in read.oddities:
            show.warn(oddity)
        return rankings(read.run, options.collection(self.data, self.topics, split=self.split))


@dataclass(frozen=True)
class By:
    """With what: a component, or the one that a model is made for."""

    model: Annotated[str | None, typer.Option("--model", help="An alias, a Hugging Face id or a folder.")] = None
    use: Annotated[str | None, typer.Option("--use", "-u", help="The reranker; --model knows its own.")] = None
    lm: Annotated[str, typer.Option("--lm", help="What runs --model: hf, vllm, ray, or the URL of a server.")] = "hf"
    settings: options.Set = None
    depth: options.Depth = None
    cache: Cache = None
    offline: Annotated[bool, typer.Option("--offline", help="Ask nothing: replay from --cache.")] = False
    max_seconds_per_query: Annotated[
        float | None, typer.Option(min=0, metavar="S", help="A query's share of its batch's seconds; then it is ended.")
    ] = None
    max_calls: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Windows (passages, requests) a query may have.")
    ] = None
    max_tokens: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Tokens that a query may cost, in and out.")
    ] = None

    def node(self) -> dict[str, Any]:
        """The reranker's recipe node.

        :raises RecipeError: If the options do not go together, or it does not take one.
        :raises ModelError: If nothing says what kind of model it is.
        """
        from rankpipe import recipe
        from rankpipe.errors import RecipeError
        from rankpipe.rerank.model import component, guess

        if self.lm != "hf" and not self.model:
            raise RecipeError([f"--lm {self.lm}: say which model it is to run, with --model"])
        chosen = component(self.model, self.use, self.lm) if self.model else {"use": self.use or "cross-encoder"}
        node = options.merged(chosen, self.settings)
        said = options.merged({"use": node["use"]}, self.settings).get("lm", {})
        if self.model and not (isinstance(said, dict) and said.keys().isdisjoint({"use", "model"})):
            raise RecipeError(["--model and --set lm=...: give one of them; --set lm.KEY=VALUE changes a part"])
        if f"{node['use']}: argument 'lm' is missing" in recipe.bind(node, ""):
            raise RecipeError([f"{node['use']} asks a language model: name one with --model, or with --set lm=..."])
        if self.model and not self.use and (why := guess(self.model, self.lm)):
            show.remark(f"{self.model} is not in the table of models: {node['use']}, {why}; --use says otherwise")
        limits = {"seconds": self.max_seconds_per_query, "calls": self.max_calls, "tokens": self.max_tokens}
        if limits := {k: v for k, v in limits.items() if v is not None}:
            if "budget" not in recipe.spelled(node["use"]):
                raise RecipeError([f"--max-calls, --max-tokens, --max-seconds-per-query: {node['use']} has no budget"])
            node["budget"] = {"use": "budget", **limits}
        if self.depth is not None:
            if "depth" not in recipe.spelled(node["use"]):
                raise RecipeError([f"--depth: {node['use']} reads all hits; cut the run with --use top --set k=..."])
            node["depth"] = self.depth
        if self.offline and not self.cache:
            raise RecipeError(["--offline: say with --cache where the answers are"])
        return options.checked(cached(node, self.cache, self.offline))

    @property
    def name(self) -> str:
        """For progress and messages."""
        return self.model or self.use or "cross-encoder"


def cached(node: dict[str, Any], path: Path | None, offline: bool = False) -> dict[str, Any]:
    """The reranker, the answers of its language model kept.

    :raises RecipeError: If it asks none.
    """
    from rankpipe import recipe
    from rankpipe.errors import RecipeError

    asks = recipe.spelled(node["use"]).get("lm") == "LM"  # in-context reranking looks inside a model of its own
    if path and not asks:
        raise RecipeError([f"--cache: {node['use']} asks no language model whose answers could be kept"])
    if path is None or "lm" not in node:
        return node
    return {**node, "lm": {"use": "cache", "lm": node["lm"], "path": str(path), "offline": offline}}


def heads(rankings: Sequence[Ranking], reranker: Any) -> list[Ranking]:
    """Of each query the hits that the reranker reads."""
    return [replace(r, hits=r.hits[: getattr(reranker, "depth", None)]) for r in rankings]


def remark(rankings: Sequence[Ranking], reranker: Any) -> None:
    """Say how many hits lie below those that the reranker reads."""
    below = [len(r.hits) - len(h.hits) for r, h in zip(rankings, heads(rankings, reranker), strict=True)]
    if any(below):
        show.remark(
            f"the first {reranker.depth} hits of each query are reranked; {sum(below)} more, of "
            f"{sum(map(bool, below))} queries, stay below them in their order (--depth)"
        )
