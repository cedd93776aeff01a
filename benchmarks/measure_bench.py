"""Measures the runtime's speed on the CPU in the published sizes; writes ``benchmarks/results/bench.json``.

    python benchmarks/measure_bench.py [--rounds 8] [--threads 2] [--folder build/bench]

Contestants take turns (see align_bench/contest.py), raw seconds are kept, goals and ratios are in
figures/bench_table.py. The plain graphs are transformers' towers through `torch.onnx.export` on ONNX Runtime with all
threads; the pipeline is transformers' processor and its eager model. OpenVINO runs our FP32 graph with as many streams
as we have. Random conditioned weights (see tests/support/checkpoints.py): good for time. Not for a machine that does
anything else. `--folder` keeps the checkpoint and the bundle, whose building takes most of the time, for the next run.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
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

from align_bench.interleaved import time_interleaved
from align_bench.machine import describe
from align_bench.measure import measure_start
from align_bench.peers import EmbedCall, PeerRequest, open_openvino, open_openvino_bf16
from align_bench.record import Case
from align_bench.subject import Subject, make_images, opened
from align_exporter.freshness import provenance
from align_exporter.pipeline import build
from align_reference.checkpoint import load_model
from align_reference.source import resolve
from align_runtime.backends import open_runner
from align_runtime.bundle import Bundle
from align_runtime.console import Progress
from benchmarks.bench_table import rows_of
from benchmarks.measure_int8 import OPTIONS
from benchmarks.measure_text import batches, captions
from benchmarks.race import run_all
from support.checkpoints import full_size_checkpoint, full_size_config
from support.oracle import oracle_of
from support.plain_export import export_text_plainly, export_vision_plainly

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "bench.json"
BATCHES = (1, 8)
PROCESSES = 3
PRECISIONS = ("fp32", "int8")


def prepare(folder: Path) -> tuple[Path, Bundle]:
    """Checkpoint and bundle in `folder`, made where they are missing, with the plain graphs beside them."""
    checkpoint, target = folder / "checkpoint", folder / "bundle"
    if not (checkpoint / "config.json").is_file():
        full_size_checkpoint(checkpoint)
    if not (target / "align.json").is_file():
        source = resolve(str(checkpoint))
        build(source, provenance(source, OPTIONS), target, OPTIONS, Progress())
    if not (folder / "text.onnx").is_file():
        model = load_model(checkpoint)
        export_vision_plainly(oracle_of(model, full_size_config()).vision_model, folder / "vision.onnx")
        export_text_plainly(model, folder / "text.onnx")
    return checkpoint, Bundle.open(target)


@contextmanager
def subjects(bundle: Bundle, threads: int) -> Iterator[dict[str, Subject]]:
    """Both precisions, loaded as a user loads them."""
    with opened(bundle, "fp32", "cpu", threads) as single, opened(bundle, "int8", "cpu", threads) as bytes_wide:
        yield {"fp32": single, "int8": bytes_wide}


def pixel_cases(bundle: Bundle, plain: Path, rounds: int, threads: int) -> list[dict[str, Any]]:
    """Preprocessed images to embeddings; the plain graph and OpenVINO's preprocessing cost nothing."""
    cases = []
    runner = open_runner(plain, "cpu", threads)
    with subjects(bundle, threads) as models:
        for batch in BATCHES:
            case = Case("vision", "fp32", "cpu", batch, "640x480", threads, threads)
            pixels = models["fp32"].pixels(make_images(batch, 640, 480))
            request = PeerRequest(bundle, case, {"pixels": pixels}, None)
            contestants: dict[str, EmbedCall] = {
                **{name: _embed_pixels(models[name], pixels) for name in PRECISIONS},
                "plain": run_all(runner, [{"pixel_values": np.ascontiguousarray(request.pixel_values)}]),
                "openvino": open_openvino(request),
                "openvino-bf16": open_openvino_bf16(request),
            }
            cases.append(race(f"pixels {batch}", contestants, rounds))
    return cases


def _embed_pixels(subject: Subject, pixels: NDArray[np.uint8]) -> EmbedCall:
    return lambda: subject.model.embed_pixels(pixels)


def caption_case(bundle: Bundle, plain: Path, rounds: int, threads: int) -> dict[str, Any]:
    """Texts to embeddings; the plain graph gets tokens that are padded to 64 already."""
    texts = captions()
    runner = open_runner(plain, "cpu", threads)
    with subjects(bundle, threads) as models:
        contestants: dict[str, EmbedCall] = {
            "fp32": lambda: models["fp32"].model.embed_text(texts),
            "int8": lambda: models["int8"].model.embed_text(texts),
            "plain": run_all(runner, batches(bundle, texts)),
        }
        return race("captions", contestants, rounds)


def file_cases(bundle: Path, checkpoint: Path, rounds: int, threads: int) -> list[dict[str, Any]]:
    """JPEG files of 640 × 480 to embeddings, against transformers' pipeline, in `PROCESSES` fresh processes.

    The rounds of all of them are one case: how long torch's eager mode takes depends on the process, by its memory.
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
            contestants: dict[str, EmbedCall] = {
                **{name: _embed_images(models[name], files) for name in PRECISIONS},
                "pipeline": lambda files=files: pipeline(files),
            }
            cases.append(race(f"files {batch}", contestants, rounds))
    return cases


def _embed_images(subject: Subject, files: list[bytes]) -> EmbedCall:
    return lambda: subject.model.embed_images(files)


def overhead_cases(bundle: Bundle, rounds: int, threads: int) -> list[dict[str, Any]]:
    """One input as tensors, through our code and through the session that our code calls."""
    cases = []
    with subjects(bundle, threads) as models:
        for precision, subject in models.items():
            pixels = subject.pixels(make_images(1, 640, 480))
            session = subject.parts.images.tower._whole._session
            contestants: dict[str, EmbedCall] = {
                "session": lambda session=session, pixels=pixels: session.run(None, {"pixels": pixels})[0],
                "ours": _embed_pixels(subject, pixels),
            }
            cases.append(race(f"overhead vision {precision}", contestants, 3 * rounds))
            (row,) = subject.parts.texts.tokenizer.encode(["a photo of a cat on a mat"])
            ids, mask = subject.parts.texts.tokenizer.pad([row])
            text_session = subject.parts.texts.tower._whole._session
            inputs = {"input_ids": ids, "attention_mask": mask}
            contestants = {
                "session": lambda session=text_session, inputs=inputs: session.run(None, inputs)[0],
                "ours": lambda subject=subject, row=row: subject.parts.texts.embed_rows([row]),
            }
            cases.append(race(f"overhead text {precision}", contestants, 10 * rounds))
    return cases


def race(name: str, contestants: dict[str, EmbedCall], rounds: int) -> dict[str, Any]:
    embeds = {key: call() for key, call in contestants.items()}
    first = next(iter(embeds.values()))
    differences = {key: float(np.abs(rows - first).max()) for key, rows in embeds.items()}
    seconds = time_interleaved(contestants, rounds, warmup=0)
    print(name, {key: f"{1000 * float(np.median(series)):.1f} ms" for key, series in seconds.items()}, flush=True)
    return {"name": name, "seconds": seconds, "max_abs_from_first": differences}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8, help="turns of every contestant, 7 or more (default: 8)")
    parser.add_argument("--threads", type=int, default=2, help="of every contestant, and its streams (default: 2)")
    parser.add_argument("--folder", type=Path, help="keep checkpoint and bundle here (default: nowhere)")
    options = parser.parse_args()
    before = os.getloadavg()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        checkpoint, bundle = prepare(folder)
        starts = [measure_start(bundle.folder, "fp32", "cpu", options.threads, None) for _ in range(options.rounds)]
        cases = [
            *pixel_cases(bundle, folder / "vision.onnx", options.rounds, options.threads),
            caption_case(bundle, folder / "text.onnx", options.rounds, options.threads),
            *file_cases(bundle.folder, checkpoint, options.rounds, options.threads),
            *overhead_cases(bundle, options.rounds, options.threads),
        ]
    result = {
        "machine": describe("cpu"),
        "load": {"before": before, "after": os.getloadavg()},
        "threads": options.threads,
        "starts": [asdict(start) for start in starts],
        "cases": cases,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    for row in rows_of(result):
        print(*row, sep=" | ")
    print(f"wrote {RESULT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
