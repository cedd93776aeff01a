"""Measures the text graphs on the CPU in the published sizes; writes ``tests/results/text.json``.

    python tests/figures/measure_text.py [--rounds 8] [--threads 2]

The baseline of every case is the plain text tower, all rows of all layers, as `torch.onnx.export` writes it, run by the
same ONNX Runtime on inputs padded as the case says. Contestants take turns within a round and the order is reversed
from round to round, so that the ratio of two rounds stands even where the machine's speed drifts. Raw seconds are kept;
ratios are made from them. Random conditioned weights (see tests/support/checkpoints.py) and a small vocabulary, whose
words are one token each: good for time and FP32 parity.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import align_runtime
from align_exporter.build import build
from align_exporter.freshness import provenance
from align_exporter.options import ExportOptions
from align_reference.checkpoint import load_model
from align_reference.model import AlignModel, unit_length
from align_reference.source import resolve
from align_runtime.backends import Runner, open_runner
from align_runtime.bundle import Bundle
from align_runtime.console import Progress
from align_runtime.tokenizer import Tokenizer
from figures.machine import describe
from figures.ratios import speedup
from support.checkpoints import full_size_checkpoint
from support.tokenizers import VOCABULARY

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "tests" / "results" / "text.json"
CAPTIONS, BATCH, PADDED = 128, 32, 64
EQUAL_LENGTHS = ((1, 12), (1, 64), (8, 12), (8, 64))  # (batch, sequence), nothing to gain from padding
EQUAL_REPEATS = 3  # rounds of these short cases for each round of the captions

Inputs = dict[str, NDArray[np.int64]]
Contestants = Mapping[str, Callable[[], NDArray[np.float32]]]


class PlainTextTower(nn.Module):
    """The reference as it is, for the baseline."""

    def __init__(self, model: AlignModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return unit_length(self.model.get_text_features(input_ids, attention_mask))


def export_plainly(model: AlignModel, file: Path) -> Path:
    """`PlainTextTower` through nothing but `torch.onnx.export`."""
    examples = (torch.zeros(2, 7, dtype=torch.int64), torch.ones(2, 7, dtype=torch.int64))
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", max=PADDED)}
    dynamic = {"input_ids": sizes, "attention_mask": sizes}
    program = torch.onnx.export(PlainTextTower(model).eval(), examples, dynamo=True, dynamic_shapes=dynamic)
    assert program is not None
    program.save(file)
    return file


def captions() -> list[str]:
    """128 captions of 11 tokens on average, [CLS] and [SEP] included, most of them short and a few long."""
    generator = np.random.default_rng(0)
    words = [word for word in VOCABULARY if word.isalpha()]
    lengths = np.clip(np.round(3 + generator.gamma(shape=3.0, scale=2.83, size=CAPTIONS)), 3, PADDED).astype(int)
    return [" ".join(generator.choice(words, length - 2)) for length in lengths]


def batches(tokenizer: Tokenizer, texts: list[str]) -> list[Inputs]:
    """The captions in their order, in batches of 32, padded to 64 as AlignProcessor does."""
    rows = tokenizer.encode(texts)
    padded = [tokenizer.pad(rows[start : start + BATCH], PADDED) for start in range(0, len(rows), BATCH)]
    return [{"input_ids": input_ids, "attention_mask": mask} for input_ids, mask in padded]


def equal_lengths(batch: int, sequence: int) -> Inputs:
    ids = np.random.default_rng(1).integers(5, len(VOCABULARY), (batch, sequence))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def run_all(runner: Runner, inputs: list[Inputs]) -> Callable[[], NDArray[np.float32]]:
    return lambda: np.concatenate([runner.run(batch) for batch in inputs])


def race(name: str, contestants: Contestants, rounds: int) -> dict[str, Any]:
    """Seconds of every contestant in every round, and its largest difference from the first one, the baseline."""
    embeds = {contestant: run() for contestant, run in contestants.items()}  # the warm-up
    baseline = next(iter(contestants))
    seconds: dict[str, list[float]] = {contestant: [] for contestant in contestants}
    for index in range(rounds):
        for contestant in list(contestants)[:: 1 if index % 2 else -1]:
            start = time.perf_counter()
            contestants[contestant]()
            seconds[contestant].append(time.perf_counter() - start)
    for contestant, values in seconds.items():
        ratio = speedup(seconds[baseline], values)
        print(f"{name:>12}  {contestant:<24} {1000 * median(values):8.1f} ms  × {ratio:.3f}", flush=True)
    return {
        "name": name,
        "seconds": {key: [round(value, 6) for value in values] for key, values in seconds.items()},
        "max_abs_from_plain": {key: float(np.abs(rows - embeds[baseline]).max()) for key, rows in embeds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=8, help="of the captions, after a warm-up; an even number (default: 8)"
    )
    parser.add_argument("--threads", type=int, default=2, help="of ONNX Runtime (default: 2)")
    options = parser.parse_args()
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, target = full_size_checkpoint(Path(folder) / "checkpoint"), Path(folder) / "bundle"
        source, options = resolve(str(checkpoint)), ExportOptions()
        build(source, provenance(source, options), target, options, Progress())
        plain = open_runner(export_plainly(load_model(checkpoint), Path(folder) / "plain.onnx"), "cpu", options.threads)
        bundle = Bundle.open(target)
        graph = open_runner(bundle.path(bundle.graph("text", "fp32", "cpu").file), "cpu", options.threads)
        texts, facts = captions(), bundle.manifest.model
        tokenizer = Tokenizer.from_file(bundle.path("tokenizer.json"), facts.max_length, facts.pad_token_id)
        padded = batches(tokenizer, texts)
        cases = []
        for batch, sequence in EQUAL_LENGTHS:
            inputs = [equal_lengths(batch, sequence)]
            contestants = {"plain": run_all(plain, inputs), "graph": run_all(graph, inputs)}
            cases.append(race(f"{batch}x{sequence}", contestants, EQUAL_REPEATS * options.rounds))
        with align_runtime.load(target, threads=options.threads) as model:
            contestants = {
                "plain": run_all(plain, padded),
                "graph": run_all(graph, padded),
                "embed_text": lambda: model.embed_text(texts),
            }
            cases.append(race("captions", contestants, options.rounds))
    result = {
        "machine": describe(),
        "load": {"before": load_before, "after": os.getloadavg()},
        "threads": options.threads,
        "caption_tokens": [int(mask.sum()) for batch in padded for mask in batch["attention_mask"]],
        "cases": cases,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {RESULT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
