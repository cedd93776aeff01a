"""Measures the text graphs on the CPU in the published sizes; writes ``benchmarks/results/text.json``.

    python benchmarks/measure_text.py [--rounds 8] [--threads 2]

The baseline of every case is the plain text tower, all rows of all layers, as `torch.onnx.export` writes it, run by the
same ONNX Runtime on inputs padded as the case says. Contestants take turns (see figures/race.py), raw seconds are kept.
Random conditioned weights (see tests/support/checkpoints.py) and a small vocabulary, whose words are one token each:
good for time and FP32 parity.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import align_runtime
from align_exporter.export_options import ExportOptions
from align_exporter.freshness import provenance
from align_exporter.pipeline import build_bundle
from align_reference.checkpoint import load_model
from align_reference.source import resolve
from align_runtime.backends import open_runner
from align_runtime.bundle import Bundle
from align_runtime.console import Progress
from align_runtime.tokenizer import Tokenizer
from benchmarks.machine import describe
from benchmarks.race import race, run_all
from support.checkpoints import full_size_checkpoint
from support.openvino_runner import OpenVinoRunner
from support.plain_export import export_text_plainly
from support.tokenizers import VOCABULARY

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "text.json"
CAPTIONS, BATCH, PADDED = 128, 32, 64
EQUAL_LENGTHS = ((1, 12), (1, 64), (8, 12), (8, 64))  # (batch, sequence), nothing to gain from padding
EQUAL_REPEATS = 3  # rounds of these short cases for each round of the captions

Inputs = dict[str, NDArray[np.int64]]


def captions() -> list[str]:
    """128 captions of 11 tokens on average, [CLS] and [SEP] included, most of them short and a few long."""
    generator = np.random.default_rng(0)
    words = [word for word in VOCABULARY if word.isalpha()]
    lengths = np.clip(np.round(3 + generator.gamma(shape=3.0, scale=2.83, size=CAPTIONS)), 3, PADDED).astype(int)
    return [" ".join(generator.choice(words, length - 2)) for length in lengths]


def batches(bundle: Bundle, texts: list[str]) -> list[Inputs]:
    """The captions in their order, in batches of 32, padded to 64 as AlignProcessor does."""
    facts = bundle.manifest.model
    tokenizer = Tokenizer.from_file(bundle.path("tokenizer.json"), facts.max_length, facts.pad_token_id)
    rows = tokenizer.encode(texts)
    padded = [tokenizer.pad(rows[start : start + BATCH], PADDED) for start in range(0, len(rows), BATCH)]
    return [{"input_ids": input_ids, "attention_mask": mask} for input_ids, mask in padded]


def equal_lengths(batch: int, sequence: int) -> Inputs:
    ids = np.random.default_rng(1).integers(5, len(VOCABULARY), (batch, sequence))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def equal_length_cases(bundle: Bundle, plain: Path, rounds: int) -> list[dict[str, Any]]:
    """Both graphs without anything to gain from padding, and the one for all targets on OpenVINO as well.

    The differences are small, so it is the processor's time on one thread that counts: it stands on a busy machine.
    """
    padded, packed = (bundle.path(bundle.graph("text", "fp32", target).file) for target in ("any", "cpu"))
    runners = {
        "plain": open_runner(plain, "cpu", 1),
        "openvino": OpenVinoRunner(padded, 1),
        "padded": open_runner(padded, "cpu", 1),
        "graph": open_runner(packed, "cpu", 1),
    }
    cases = []
    for batch, sequence in EQUAL_LENGTHS:
        contestants = {name: run_all(runner, [equal_lengths(batch, sequence)]) for name, runner in runners.items()}
        cases.append(race(f"{batch}x{sequence}", contestants, rounds, time.process_time))
    return cases


def caption_case(bundle: Bundle, plain: Path, texts: list[str], rounds: int, threads: int) -> dict[str, Any]:
    """What a service meets: texts of many lengths, which the plain graph gets padded to 64."""
    padded = batches(bundle, texts)
    graph = bundle.path(bundle.graph("text", "fp32", "cpu").file)
    with align_runtime.load(bundle.folder, threads=threads) as model:
        contestants = {
            "plain": run_all(open_runner(plain, "cpu", threads), padded),
            "graph": run_all(open_runner(graph, "cpu", threads), padded),
            "embed_text": lambda: model.embed_text(texts),
        }
        tokens = [int(mask.sum()) for batch in padded for mask in batch["attention_mask"]]
        return {"tokens": tokens, **race("captions", contestants, rounds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=8, help="of the captions, after a warm-up; an even number (default: 8)"
    )
    parser.add_argument("--threads", type=int, default=2, help="for the captions (default: 2)")
    arguments = parser.parse_args()
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, target = full_size_checkpoint(Path(folder) / "checkpoint"), Path(folder) / "bundle"
        source, options = resolve(str(checkpoint)), ExportOptions()
        build_bundle(source, provenance(source, options), target, options, Progress())
        plain = export_text_plainly(load_model(checkpoint), Path(folder) / "plain.onnx")
        bundle = Bundle.open(target)
        cases = [
            *equal_length_cases(bundle, plain, EQUAL_REPEATS * arguments.rounds),
            caption_case(bundle, plain, captions(), arguments.rounds, arguments.threads),
        ]
    result = {
        "machine": describe(),
        "load": {"before": load_before, "after": os.getloadavg()},
        "threads": arguments.threads,
        "cases": cases,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {RESULT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
