"""Measures the FP32 text graphs on the CPU in the published sizes; writes ``benchmarks/results/text.json``.

    python -m benchmarks.measure_text [--rounds 8] [--threads 2] [--folder build/bench]

The baseline of every case is the plain text tower as `torch.onnx.export` writes it, with all rows of all layers, on
ONNX Runtime, with inputs padded as the case says. Timing is interleaved. The tokenizer has a small vocabulary whose
words are one token each.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import align_runtime
from align_runtime.backends import open_runner
from align_runtime.bundle import Bundle
from align_runtime.tokenizer import Tokenizer
from benchmarks.full_size_bundle import FOLDER, prepare
from benchmarks.result_files import conditions, write_result
from benchmarks.timing import Runner, run_batches, time_case
from support.openvino_runner import OpenVinoRunner
from support.tokenizers import VOCABULARY

CAPTIONS, BATCH, PADDED = 128, 32, 64
EQUAL_LENGTHS = ((1, 12), (1, 64), (8, 12), (8, 64))  # (batch, sequence) without padding
EQUAL_REPEATS = 3  # rounds of these short cases for each round of the captions

Inputs = dict[str, NDArray[np.int64]]


def captions() -> list[str]:
    """128 captions of 11 tokens on average, [CLS] and [SEP] included; most are short and a few are long."""
    generator = np.random.default_rng(0)
    words = [word for word in VOCABULARY if word.isalpha()]
    lengths = np.clip(np.round(3 + generator.gamma(shape=3.0, scale=2.83, size=CAPTIONS)), 3, PADDED).astype(int)
    return [" ".join(generator.choice(words, length - 2)) for length in lengths]


def padded_batches(bundle: Bundle, texts: list[str]) -> list[Inputs]:
    """The texts in their order, in batches of 32, padded to 64 tokens as AlignProcessor does: int64 (32, 64) each."""
    facts = bundle.manifest.model
    tokenizer = Tokenizer.from_file(bundle.path("tokenizer.json"), facts.max_length, facts.pad_token_id)
    rows = tokenizer.encode(texts)
    padded = [tokenizer.pad(rows[start : start + BATCH], PADDED) for start in range(0, len(rows), BATCH)]
    return [{"input_ids": input_ids, "attention_mask": mask} for input_ids, mask in padded]


def equal_lengths(batch: int, sequence: int) -> Inputs:
    """Random tokens without padding, int64 (batch, sequence)."""
    ids = np.random.default_rng(1).integers(5, len(VOCABULARY), (batch, sequence))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def equal_length_cases(bundle: Bundle, plain: Path, rounds: int) -> list[dict[str, Any]]:
    """Both FP32 graphs on inputs without padding, and the one for all devices on OpenVINO too.

    The differences are small, so these cases measure the CPU time of one thread, which a busy machine does not disturb.
    """
    every_device, cpu = (bundle.path(bundle.graph("text", "fp32", target).file) for target in ("any", "cpu"))
    runners: dict[str, Runner] = {
        "plain": open_runner(plain, "cpu", 1),
        "openvino": OpenVinoRunner(every_device, 1),
        "padded": open_runner(every_device, "cpu", 1),
        "graph": open_runner(cpu, "cpu", 1),
    }
    cases = []
    for batch, sequence in EQUAL_LENGTHS:
        candidates = {name: run_batches(runner, [equal_lengths(batch, sequence)]) for name, runner in runners.items()}
        cases.append(time_case(f"{batch}x{sequence}", candidates, rounds, time.process_time))
    return cases


def caption_case(bundle: Bundle, plain: Path, texts: list[str], rounds: int, threads: int) -> dict[str, Any]:
    """Texts of many lengths, as a service gets them; the plain graph gets them padded to 64 tokens."""
    padded = padded_batches(bundle, texts)
    graph = bundle.path(bundle.graph("text", "fp32", "cpu").file)
    with align_runtime.load(bundle.folder, threads=threads) as model:
        candidates = {
            "plain": run_batches(open_runner(plain, "cpu", threads), padded),
            "graph": run_batches(open_runner(graph, "cpu", threads), padded),
            "embed_texts": lambda: model.embed_texts(texts),
        }
        tokens = [int(mask.sum()) for batch in padded for mask in batch["attention_mask"]]
        return {"tokens": tokens, **time_case("captions", candidates, rounds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8, help="rounds of the captions, an even number (default: 8)")
    parser.add_argument("--threads", type=int, default=2, help="threads for the captions (default: 2)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="checkpoint and bundle, made if missing")
    options = parser.parse_args()
    load_before = os.getloadavg()
    model = prepare(options.folder)
    cases = [
        *equal_length_cases(model.bundle, model.plain_text, EQUAL_REPEATS * options.rounds),
        caption_case(model.bundle, model.plain_text, captions(), options.rounds, options.threads),
    ]
    write_result("text", {**conditions(load_before), "threads": options.threads, "cases": cases})


if __name__ == "__main__":
    main()
