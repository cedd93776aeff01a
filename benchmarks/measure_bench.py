"""Measures the runtime's speed on the CPU in the published sizes; writes ``benchmarks/results/bench.json``.

    python -m benchmarks.measure_bench [--rounds 8] [--threads 2] [--folder build/bench]

Timing is interleaved; the targets and the speedups are derived in benchmarks/sections/targets.py. The plain graphs are
transformers' towers through `torch.onnx.export`, on ONNX Runtime with all threads. The pipeline is transformers'
processor and its eager model. OpenVINO runs our FP32 graph with as many streams as we have. Run it on an otherwise idle
machine. `--folder` keeps the checkpoint and the bundle, whose building takes most of the time. Results of other
processors stay in the file.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil

from align_bench.measure import measure_start
from align_bench.peers import PeerRequest, open_openvino, open_openvino_bf16
from align_bench.record import Case
from align_bench.subject import Subject, make_images, opened
from align_reference.checkpoint import load_model
from align_runtime.backends import open_runner
from align_runtime.bundle import Bundle
from benchmarks.full_size_bundle import FOLDER, prepare
from benchmarks.measure_text import captions, padded_batches
from benchmarks.result_files import RESULTS, conditions, read_json, write_result
from benchmarks.sections.targets import target_rows, with_record
from benchmarks.timing import Candidate, run_batches, time_case
from support.checkpoints import full_size_config
from support.oracle import oracle_of

BATCHES = (1, 8)
PROCESSES = 3
PRECISIONS = ("fp32", "int8")


@contextmanager
def subjects(bundle: Bundle, threads: int) -> Iterator[dict[str, Subject]]:
    """The bundle in both precisions, loaded as a user loads it."""
    with opened(bundle, "fp32", "cpu", threads) as fp32, opened(bundle, "int8", "cpu", threads) as int8:
        yield {"fp32": fp32, "int8": int8}


def pixel_cases(bundle: Bundle, plain: Path, rounds: int, threads: int) -> list[dict[str, Any]]:
    """Preprocessed images to embeddings; normalization is part of our time and not of the others'."""
    cases = []
    runner = open_runner(plain, "cpu", threads)
    with subjects(bundle, threads) as models:
        for batch in BATCHES:
            case = Case("vision", "fp32", "cpu", batch, "640x480", threads, threads)
            pixels = models["fp32"].pixels(make_images(batch, 640, 480))
            request = PeerRequest(bundle, case, {"pixels": pixels}, None)
            candidates: dict[str, Candidate] = {
                **{name: _embed_pixels(models[name], pixels) for name in PRECISIONS},
                "plain": run_batches(runner, [{"pixel_values": np.ascontiguousarray(request.pixel_values)}]),
                "openvino": open_openvino(request),
                "openvino-bf16": open_openvino_bf16(request),
            }
            cases.append(time_case(f"pixels {batch}", candidates, rounds))
    return cases


def _embed_pixels(subject: Subject, pixels: NDArray[np.uint8]) -> Candidate:
    return lambda: subject.model.embed_pixels(pixels)


def caption_case(bundle: Bundle, plain: Path, rounds: int, threads: int) -> dict[str, Any]:
    """Texts to embeddings; the plain graph gets token tensors, padded to 64 tokens."""
    texts = captions()
    runner = open_runner(plain, "cpu", threads)
    with subjects(bundle, threads) as models:
        candidates: dict[str, Candidate] = {
            "fp32": lambda: models["fp32"].model.embed_texts(texts),
            "int8": lambda: models["int8"].model.embed_texts(texts),
            "plain": run_batches(runner, padded_batches(bundle, texts)),
        }
        return time_case("captions", candidates, rounds)


def file_cases(bundle: Path, checkpoint: Path, rounds: int, threads: int) -> list[dict[str, Any]]:
    """JPEG files of 640×480 to embeddings, against transformers' pipeline, in `PROCESSES` fresh processes.

    The rounds of all processes make one case: the time of PyTorch's eager mode differs between processes, because it
    depends on the layout of their memory.
    """
    merged: list[dict[str, Any]] = []
    for _ in range(PROCESSES):
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            cases = process.submit(_file_cases, bundle, checkpoint, rounds, threads).result()
        for whole, case in zip(merged, cases, strict=False):
            whole["seconds"] = {name: [*series, *case["seconds"][name]] for name, series in whole["seconds"].items()}
        merged = merged or cases
    return merged


def _file_cases(folder: Path, checkpoint: Path, rounds: int, threads: int) -> list[dict[str, Any]]:
    bundle = Bundle.open(folder)
    torch.set_num_threads(threads)
    processor = EfficientNetImageProcessorPil.from_pretrained(checkpoint)
    oracle = oracle_of(load_model(checkpoint), full_size_config()).vision_model.eval()

    def pipeline(files: list[bytes]) -> NDArray[np.float32]:
        images = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
        with torch.inference_mode():
            pooled = oracle(**processor(images, return_tensors="pt")).pooler_output.flatten(1)
            return torch.nn.functional.normalize(pooled).numpy()

    cases = []
    with subjects(bundle, threads) as models:
        for batch in BATCHES:
            files = make_images(batch, 640, 480)
            candidates: dict[str, Candidate] = {
                **{name: _embed_images(models[name], files) for name in PRECISIONS},
                "pipeline": lambda files=files: pipeline(files),
            }
            cases.append(time_case(f"files {batch}", candidates, rounds))
    return cases


def _embed_images(subject: Subject, files: list[bytes]) -> Candidate:
    return lambda: subject.model.embed_images(files)


def overhead_cases(bundle: Bundle, rounds: int, threads: int) -> list[dict[str, Any]]:
    """One input as tensors, through the runtime and through the ONNX Runtime session that it calls."""
    cases = []
    with subjects(bundle, threads) as models:
        for precision, subject in models.items():
            pixels = subject.pixels(make_images(1, 640, 480))
            session = subject.parts.images.tower._whole._session
            candidates: dict[str, Candidate] = {
                "session": lambda session=session, pixels=pixels: session.run(None, {"pixels": pixels})[0],
                "ours": _embed_pixels(subject, pixels),
            }
            cases.append(time_case(f"overhead vision {precision}", candidates, 3 * rounds))
            (row,) = subject.parts.texts.tokenizer.encode(["a photo of a cat on a mat"])
            ids, mask = subject.parts.texts.tokenizer.pad([row])
            text_session = subject.parts.texts.tower._whole._session
            inputs = {"input_ids": ids, "attention_mask": mask}
            candidates = {
                "session": lambda session=text_session, inputs=inputs: session.run(None, inputs)[0],
                "ours": lambda subject=subject, row=row: subject.parts.texts.embed_rows([row]),
            }
            cases.append(time_case(f"overhead text {precision}", candidates, 10 * rounds))
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8, help="rounds, an even number of 8 or more (default: 8)")
    parser.add_argument("--threads", type=int, default=2, help="threads of every candidate (default: 2)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="checkpoint and bundle, made if missing")
    options = parser.parse_args()
    load_before = os.getloadavg()
    model, rounds, threads = prepare(options.folder), options.rounds, options.threads
    starts = [measure_start(model.bundle.folder, "fp32", "cpu", threads, None) for _ in range(rounds)]
    cases = [
        *pixel_cases(model.bundle, model.plain_vision, rounds, threads),
        caption_case(model.bundle, model.plain_text, rounds, threads),
        *file_cases(model.bundle.folder, model.checkpoint, rounds, threads),
        *overhead_cases(model.bundle, rounds, threads),
    ]
    record = {
        **conditions(load_before),
        "threads": threads,
        "starts": [asdict(start) for start in starts],
        "cases": cases,
    }
    file = RESULTS / "bench.json"
    write_result("bench", with_record(read_json(file) if file.exists() else None, record))
    for row in target_rows([record]):
        print(*row, sep=" | ")


if __name__ == "__main__":
    main()
