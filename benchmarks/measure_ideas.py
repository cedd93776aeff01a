"""Measures ideas to make a single call faster, kept and dropped ones; writes ``benchmarks/results/ideas.json``.

    python -m benchmarks.measure_ideas [--rounds 16] [--folder build/bench]

Every idea runs interleaved with what it changes, on the graphs for CPUs in the published sizes: one caption of 12
tokens or one image with all cores, and 8 texts of 64 tokens on one core, as in a stream. The expectations, and what
came of each idea, are in benchmarks/sections/ideas.py.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from align_bench.subject import make_images, opened
from align_runtime.bundle import Bundle
from align_runtime.processors import available_cores
from benchmarks.full_size_bundle import FOLDER, prepare
from benchmarks.graph_ideas import in_strips, with_additions, with_one_projection, with_scaled_products
from benchmarks.result_files import conditions, write_result
from benchmarks.sessions import Inputs, image, session, texts
from benchmarks.timing import Candidate, time_case

Change = Callable[[onnx.ModelProto], object]
BEFORE, AFTER = "before", "after"
ONE_PROJECTION = (with_scaled_products, with_one_projection)


def candidate(opened_session: onnxruntime.InferenceSession, inputs: Inputs) -> Candidate:
    return lambda: opened_session.run(None, dict(inputs))[0]


def case(idea: str, title: str, before: Candidate, after: Candidate, rounds: int) -> dict[str, Any]:
    """A record: what the idea changes, and the idea."""
    return {"idea": idea, **time_case(f"{idea}, {title}", {BEFORE: before, AFTER: after}, rounds), "case": title}


def rewritten(source: Path, target: Path, *changes: Change) -> Path:
    """Writes `source` with `changes` to `target`, whose weights lie beside it."""
    model = onnx.load(source)
    for change in changes:
        change(model)
    onnx.save(model, target, save_as_external_data=True, location=f"{target.name}.data")
    return target


def text_cases(bundle: Bundle, folder: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """Ideas that change text graphs: the same for one caption with all cores, and for many on one core."""
    fp32, int8 = (bundle.path(bundle.graph("text", precision, "cpu").file) for precision in ("fp32", "int8"))
    scaled = rewritten(int8, folder / "scaled.onnx", with_scaled_products)
    changed = {
        ("unfused sums", "FP32"): (rewritten(fp32, folder / "fp32.onnx", with_additions), fp32),
        ("unfused sums", "INT8"): (rewritten(int8, folder / "int8.onnx", with_additions), int8),
        ("scaled products", "INT8"): (int8, scaled),
        ("one projection", "INT8"): (scaled, rewritten(int8, folder / "one.onnx", *ONE_PROJECTION)),
    }
    for (idea, precision), files in changed.items():
        for threads, size in ((available_cores(), (1, 12)), (1, (8, 64))):
            before, after = (candidate(session(file, threads, threads > 1), texts(*size)) for file in files)
            title = f"{size[0]} × {size[1]} tokens {precision}, {threads} thread{'s' * (threads > 1)}"
            yield case(idea, title, before, after, rounds)


def vision_cases(bundle: Bundle, folder: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """Ideas for one image with all cores."""
    cores, inputs = available_cores(), image(bundle.manifest.preprocessing.output_size[0])
    places = ";".join(str(core + 1) for core in sorted(os.sched_getaffinity(0))[1:])  # of all threads but the caller's
    fp32 = bundle.path(bundle.graph("vision", "fp32", "cpu").file)
    for strips, least in ((2, 72), (8, 144)):
        change = partial(in_strips, strips=strips, least=least)
        file = rewritten(fp32, folder / f"strips{strips}.onnx", change)
        before, after = (candidate(session(graph, cores, spinning=True), inputs) for graph in (fp32, file))
        yield case("strips", f"{strips} strips from {least} rows on, FP32", before, after, rounds)
    for precision in ("fp32", "int8"):
        file = bundle.path(bundle.graph("vision", precision, "cpu").file)
        before, after = (candidate(session(file, cores, True, place), inputs) for place in ("", places))
        yield case("threads on cores", precision.upper(), before, after, rounds)
        with opened(bundle, precision, "cpu", cores) as subject:
            files = make_images(1, 640, 480)
            pixels = subject.pixels(files)
            yield case(
                "decoded image",
                f"JPEG of 640×480, {precision.upper()}",
                lambda subject=subject, files=files: subject.model.embed_images(files),
                lambda subject=subject, pixels=pixels: subject.model.embed_pixels(pixels),
                rounds,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=16, help="rounds, an even number (default: 16)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="checkpoint and bundle, made if missing")
    options = parser.parse_args()
    load, bundle = os.getloadavg(), prepare(options.folder).bundle
    with tempfile.TemporaryDirectory() as name:
        cases = [
            *text_cases(bundle, Path(name), options.rounds),
            *vision_cases(bundle, Path(name), options.rounds),
        ]
    write_result("ideas", conditions(load) | {"cases": cases})


if __name__ == "__main__":
    main()
