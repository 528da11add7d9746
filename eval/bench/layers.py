"""Where a layer of a small encoder spends its time on one core: its parts in bfloat16, and products of int8.

python eval/bench/layers.py [--times 30] [--documents 64]

Sizes are all-MiniLM-L6-v2's: four texts of 256 tokens (as in a stream of ``backend: torch-bfloat16``), and one. Rivals
take turns; each one's figure is its best turn in processor time, so that other work on the machine counts little. What
dynamic int8 of torch.ao does to vectors is measured on SciFact's documents.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from time import thread_time
from typing import Any

import torch
from common import HERE, Row, file, race
from torch.nn import functional as F

from rankpipe import open_dataset, weights

MODEL = "minilm"
TOKENS, WIDTH, HEADS, INNER = 256, 384, 12, 1536
Work = Callable[[], Any]


def main() -> None:
    """Measure, and file the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=30, help="turns of each rival")
    parser.add_argument("--documents", type=int, default=64, help="whose vectors are compared")
    parser.add_argument("--into", type=Path, default=HERE, help="where the result is filed")
    told = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.inference_mode():
        rows = [row for texts in (4, 1) for row in timed(layer(texts), told.times, texts)]
        for width, out in ((WIDTH, INNER), (INNER, WIDTH), (WIDTH, WIDTH)):
            rows += products(width, out, told.times)
        rows.append({"part": "vectors by torch.ao's dynamic int8", "cosine": cosine(told.documents)})
    file("layers", rows, told.into)


def layer(texts: int) -> dict[str, tuple[Work, float]]:
    """Parts of a layer, and for each how many multiplications and additions its matrix products are."""
    held = drawn(texts, TOKENS, WIDTH)
    inner = drawn(texts, TOKENS, INNER)
    square, three = [drawn(WIDTH, WIDTH) for _ in range(3)], drawn(3 * WIDTH, WIDTH)
    up, down, scale = drawn(INNER, WIDTH), drawn(WIDTH, INNER), drawn(WIDTH)
    q, k, v = (drawn(texts, HEADS, TOKENS, WIDTH // HEADS) for _ in range(3))
    exact = q.float(), k.float(), v.float()
    product = 2.0 * texts * TOKENS * WIDTH
    looks = 4.0 * texts * TOKENS**2 * WIDTH

    def apart() -> Any:
        return torch.softmax(q @ k.transpose(-1, -2) * (WIDTH // HEADS) ** -0.5, -1) @ v

    return {
        "projections": (lambda: [F.linear(held, one) for one in square], 3 * product * WIDTH),
        "projections, one product": (lambda: F.linear(held, three), 3 * product * WIDTH),
        "up": (lambda: F.linear(held, up), product * INNER),
        "down": (lambda: F.linear(inner, down), product * INNER),
        "attention": (lambda: F.scaled_dot_product_attention(q, k, v), looks),
        "attention, single precision": (partial(F.scaled_dot_product_attention, *exact), looks),
        "attention, two products": (apart, looks),
        "GELU": (lambda: F.gelu(inner), 0.0),
        "normalisation": (lambda: F.layer_norm(held, (WIDTH,), scale, scale), 0.0),
    }


def timed(parts: dict[str, tuple[Work, float]], times: int, texts: int) -> Iterator[Row]:
    """The best turn of each."""
    done = best({name: work for name, (work, _) in parts.items()}, times)
    for name, (_, operations) in parts.items():
        speed = {"gflops": round(operations / done[name] / 1e9)} if operations else {}
        yield {"part": name, "texts": texts, "ms": round(1000 * done[name], 2), **speed}


def products(width: int, out: int, times: int) -> Iterator[Row]:
    """One product, in bfloat16 and of int8; of int8 also with all that it takes: a scale for each token and output."""
    rows = 4 * TOKENS
    held, weight = drawn(rows, width), drawn(out, width)
    whole, scales = quantised(weight)
    right = whole.t()
    left, _ = quantised(held)

    def scaled() -> Any:
        left, own = quantised(held)
        return (torch._int_mm(left, right) * own * scales.t()).to(torch.bfloat16)

    ways = {
        "bfloat16": lambda: F.linear(held, weight),
        "int8": lambda: torch._int_mm(left, right),
        "int8 with scales": scaled,
    }
    done = best(ways, times)
    for name, seconds in done.items():
        speed = round(2.0 * rows * width * out / seconds / 1e9)
        yield {
            "part": f"{rows} x {width} x {out}, {name}", "ms": round(1000 * seconds, 2), "gflops": speed,
            "times_as_fast": round(done["bfloat16"] / seconds, 2),
        }  # fmt: skip


def quantised(held: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole numbers of eight bits, and what each row's are multiples of, (rows, 1)."""
    scales = held.abs().amax(1, keepdim=True).float() / 127
    return (held / scales).round().to(torch.int8), scales


def best(ways: dict[str, Work], times: int) -> dict[str, float]:
    """Processor seconds of each one's best turn; the first warms up."""
    done = race({name: partial(clocked, work) for name, work in ways.items()}, times + 1)
    return {name: min(one.seconds[1:]) for name, one in done.items()}


def clocked(work: Work) -> tuple[float, None]:
    start = thread_time()
    work()
    return thread_time() - start, None


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape).to(torch.bfloat16)


def cosine(documents: int) -> float:
    """Of vectors by int8 to those in single precision, the mean."""
    from sentence_transformers import SentenceTransformer

    texts = [doc.contents for doc in islice(open_dataset("beir/scifact/test").docs(), documents)]
    model = SentenceTransformer(str(weights.resolve(MODEL)), device="cpu")
    exact = model.encode(texts, convert_to_tensor=True, normalize_embeddings=True)
    torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, torch.qint8, inplace=True)
    near = model.encode(texts, convert_to_tensor=True, normalize_embeddings=True)
    return round(float((exact * near).sum(1).mean()), 4)


if __name__ == "__main__":
    main()
