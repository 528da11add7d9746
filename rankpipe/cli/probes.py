"""What ``rankpipe doctor`` tries. Each probe runs in a process of its own: one that crashes or hangs harms nobody."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from rankpipe.catalog import EXTRAS, installed
from rankpipe.errors import DataError
from rankpipe.progress import track

TIMEOUT_S = 180


@dataclass(frozen=True)
class Finding:
    """What a probe found: ``works``, ``absent`` (never installed) or ``broken`` (there, but fails)."""

    part: str
    state: str
    said: str
    cure: str
    seconds: float


def examine(parts: Sequence[str], verbose: bool = False) -> list[Finding]:
    """Try each named part, or all.

    :raises DataError: If a part is not known.
    """
    if unknown := [p for p in parts if p not in PROBES]:
        raise DataError(f"no part {unknown[0]!r}; known are {', '.join(PROBES)}")
    return [_try(p, verbose) for p in track(list(parts) or list(PROBES), "try each part")]


def _try(part: str, verbose: bool) -> Finding:
    extra, _ = PROBES[part]
    cure = f"pip install 'rankpipe[{extra}]'" if extra else "pip install --force-reinstall rankpipe"
    if extra and not all(map(installed, EXTRAS[extra])):
        lacking = ", ".join(m for m in EXTRAS[extra] if not installed(m))
        return Finding(part, "absent", f"not installed: {lacking}", cure, 0.0)
    start = perf_counter()
    code = f"from rankpipe.cli.probes import PROBES; print(PROBES[{part!r}][1]())"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return Finding(part, "broken", f"no answer in {TIMEOUT_S} s", cure, TIMEOUT_S)
    seconds = round(perf_counter() - start, 2)
    if done.returncode == 0:
        return Finding(part, "works", done.stdout.strip().splitlines()[-1], "", seconds)
    lines = done.stderr.strip().splitlines() or [f"ended by signal {-done.returncode}"]
    said = "\n".join(lines) if verbose else lines[-1].split(": ", 1)[-1]
    model = part.removeprefix("model ")
    return Finding(part, "broken", said, f"rankpipe pull {model}" if model != part else cure, seconds)


def _bm25s() -> str:
    import bm25s
    import Stemmer

    engine = bm25s.BM25()
    engine.index(
        bm25s.tokenize(["a cat", "a dog"], stemmer=Stemmer.Stemmer("english"), show_progress=False), show_progress=False
    )
    return f"bm25s {bm25s.__version__} ranks"


def _faiss() -> str:
    import faiss
    import numpy as np

    index = faiss.IndexFlatIP(8)
    index.add(np.eye(8, dtype=np.float32))
    assert index.search(np.eye(8, dtype=np.float32), 1)[1].ravel().tolist() == list(range(8))
    return f"faiss {faiss.__version__} searches; {getattr(faiss, 'get_num_gpus', int)()} GPUs"


def _measures() -> str:
    from rankpipe.measure import evaluate

    made = evaluate({"1": {"a": 1.0, "b": 0.5}}, {"1": {"b": 1}}, ["nDCG@10", "RR@10"])
    assert round(made.means["nDCG@10"], 4) == 0.6309
    return "trec_eval's code measures"


def _encoder(name: str) -> Callable[[], str]:
    def probe() -> str:
        from rankpipe.retrieve.encode import encoder

        vectors = encoder(name).encode_docs(["a cat", "a dog"])
        return f"encodes to {vectors.shape[1]} dimensions"

    return probe


def _cross_encoder() -> str:
    from rankpipe import Doc, Hit, Query, Ranking
    from rankpipe.rerank.cross import CrossEncoder

    docs = [Doc("tea", "Boil water and steep the leaves."), Doc("cat", "Cats sleep all day.")]
    [made] = CrossEncoder().apply([Ranking.scored(Query("1", "how do I make tea"), [Hit(d, 0.0) for d in docs])])
    assert made.hits[0].doc.id == "tea"
    return "puts tea before cats"


def _smollm2() -> str:
    from rankpipe.lm.hf import HF

    [made] = HF("smollm2").complete([[{"role": "user", "content": "Say hello."}]], max_tokens=5)
    return f"says {made.text!r}"


def _torch() -> str:
    import torch
    import transformers

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    assert (torch.ones(4, 4) @ torch.ones(4, 4)).sum() == 64
    return f"torch {torch.__version__} on {device}, transformers {transformers.__version__}"


def _import(*modules: str) -> Callable[[], str]:
    def probe() -> str:
        from importlib import import_module
        from importlib.metadata import packages_distributions, version

        made = [import_module(m) for m in modules]
        owners = packages_distributions()
        return ", ".join(f"{m.__name__} {version(owners[m.__name__][0])}" for m in made)

    return probe


def _java() -> str:
    from rankpipe import java

    java.start()
    from pyserini.search.lucene import LuceneSearcher

    return f"Java {java.version()} runs Lucene through {LuceneSearcher.__module__}"


def _ray() -> str:
    import ray

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    double = ray.remote(lambda x: 2 * x)
    assert ray.get(double.remote(21)) == 42
    return f"ray {ray.__version__} runs a task"


def _milvus() -> str:
    from tempfile import TemporaryDirectory

    from pymilvus import MilvusClient

    with TemporaryDirectory() as folder:
        client = MilvusClient(f"{folder}/a.db")
        client.create_collection("a", dimension=4)
        client.insert("a", [{"id": 1, "vector": [1.0, 0, 0, 0]}])
        assert client.search("a", [[1.0, 0, 0, 0]], limit=1)[0][0]["id"] == 1
        client.close()
    return "Milvus Lite finds a vector"


PROBES: dict[str, tuple[str, Callable[[], str]]] = {  # part: (extra, what to try)
    "bm25": ("", _bm25s),
    "faiss": ("", _faiss),
    "measures": ("", _measures),
    "model bge-small": ("", _encoder("bge-small")),
    "model minilm-l12": ("", _cross_encoder),
    "torch": ("lm", _torch),
    "model smollm2": ("lm", _smollm2),
    "model minilm": ("st", _encoder("minilm")),
    "datasets": ("datasets", _import("datasets", "ir_datasets")),
    "java": ("java", _java),
    "vllm": ("vllm", _import("vllm")),
    "ray": ("ray", _ray),
    "milvus": ("milvus", _milvus),
}
