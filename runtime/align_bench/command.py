"""``align-bench BUNDLE``, ``align-bench compare A.json B.json``, ``align-bench scaling BUNDLE``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from align_bench import comparison, summary
from align_bench.contest import check_peers, contest
from align_bench.html_report import page
from align_bench.machine import describe, load_average
from align_bench.measure import identity, measure
from align_bench.plan import Plan
from align_bench.record import BenchRecord, Contest
from align_bench.scaling import measure_scaling, stream_texts
from align_bench.subject import opened
from align_bench.timing import Effort
from align_runtime.backends import resolve_device
from align_runtime.bundle import Bundle
from align_runtime.console import CommandParser, Progress, add_device_options, add_output_options, run, table
from align_runtime.graph_entry import TOWERS

PLAN, EFFORT = Plan(), Effort()


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 1 a comparison or memory that failed, 2 a wrong call or input."""
    given = sys.argv[1:] if arguments is None else arguments
    commands: dict[str, Callable[[list[str]], int]] = {"compare": _compare_main, "scaling": _scaling_main}
    if given and given[0] in commands:
        return commands[given[0]](given[1:])
    return _bench_main(given)


def _bench_main(arguments: list[str]) -> int:
    parser = CommandParser(
        prog="align-bench",
        description="Measure a bundle: latency by stage, throughput, latency under load, start and memory. "
        "`align-bench compare A.json B.json` compares results, `align-bench scaling BUNDLE` shows how costs grow.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder that align-export wrote")
    add = parser.add_argument
    add("--tower", nargs="+", choices=TOWERS, default=PLAN.towers, help="default: both")
    add("--precision", nargs="+", default=(), help="variants (default: all that the bundle has for the device)")
    add("--device", nargs="+", default=PLAN.devices, help="default: cpu")
    add("--batch", nargs="+", type=int, default=PLAN.batches, help="inputs per call (default: 1 8)")
    add("--length", nargs="+", type=int, help="tokens of a text (default: 12 64)")
    add("--image-size", nargs="+", default=PLAN.image_sizes, help="of the JPEG files (default: 640x480)")
    add("--threads", type=int, help="threads of one run (default: all cores)")
    add("--streams", type=int, help="single-threaded runs side by side (default: one per thread; 1: none)")
    add("--samples", type=int, default=EFFORT.samples, help="runs per figure (default: 30; 100 give a true p99)")
    add("--seconds", type=float, default=EFFORT.seconds, help="after which a figure has to do (default: 10)")
    add("--clients", nargs="*", type=int, default=PLAN.clients, help="threads of the closed loops (default: 1 2 4)")
    add("--rates", nargs="*", type=float, default=PLAN.rates, help="open loops: shares of what the clients achieved")
    add("--load-seconds", type=float, default=PLAN.load_seconds, help="of one loop (default: 5)")
    add("--starts", type=int, default=PLAN.starts, help="fresh processes per variant (default: 3)")
    add(
        "--against",
        type=lambda text: text.split(","),
        default=[],
        help="peers: fp32,openvino,openvino-bf16,torch,torch-compile,onnx-plain",
    )
    add("--checkpoint", type=Path, help="what the bundle was made from, for peers that run it")
    add("--rounds", type=int, default=8, help="turns against each peer (default: 8)")
    add("-o", "--output", type=Path, help="write the raw samples to this JSON file")
    add("--html", type=Path, help="write a page with plots to this file")
    add_output_options(parser)
    return run(parser, arguments, _bench)


def _bench(options: argparse.Namespace) -> int:
    progress = Progress(options.quiet or options.json)
    bundle = Bundle.open(options.bundle)
    plan = Plan(
        towers=tuple(options.tower),
        precisions=tuple(options.precision),
        devices=tuple(resolve_device(device) for device in options.device),
        batches=tuple(options.batch),
        lengths=_lengths(options, bundle),
        image_sizes=tuple(options.image_size),
        threads=options.threads,
        streams=options.streams,
        effort=Effort(options.samples, options.seconds),
        clients=tuple(options.clients),
        rates=tuple(options.rates),
        load_seconds=options.load_seconds,
        starts=options.starts,
    )
    check_peers(bundle, options.against, options.checkpoint)
    record = measure(bundle, plan, progress)
    if options.against:
        record = replace(record, contests=tuple(_contests(bundle, plan, options, progress)))
    if options.output:
        record.write(options.output)
    if options.html:
        options.html.write_text(page(record), encoding="utf-8")
    print(json.dumps(record.to_json()) if options.json else summary.as_text(record))
    rows = comparison.contest_rows(record.contests)
    if rows and not options.json:
        print(f"\n{comparison.as_text(rows)}")
    return 0


def _lengths(options: argparse.Namespace, bundle: Bundle) -> tuple[int, ...]:
    """Those asked for; else the usual ones that the model takes."""
    limit = bundle.manifest.model.max_length
    return tuple(options.length or [length for length in PLAN.lengths if length <= limit])


def _contests(bundle: Bundle, plan: Plan, options: argparse.Namespace, progress: Progress) -> list[Contest]:
    contests = []
    for device in plan.devices:
        for precision in plan.variants(bundle, device):
            with opened(bundle, precision, device, plan.threads, plan.streams) as subject:
                for case in plan.cases(precision, device):
                    with progress.phase(f"{case} against {', '.join(options.against)}"):
                        contests.append(contest(subject, case, options.against, options.rounds, options.checkpoint))
    return contests


def _compare_main(arguments: list[str]) -> int:
    parser = CommandParser(
        prog="align-bench compare",
        description="Compare results of align-bench with the first of them. A ratio is shown only where the noise is "
        "smaller than the difference; the exit code is 1 where one is not.",
    )
    parser.add_argument("records", metavar="RECORD.json", nargs="+", type=Path, help="what align-bench -o wrote")
    parser.add_argument("--across-machines", action="store_true", help="compare results of different hardware too")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object on stdout")
    return run(parser, arguments, _compare)


def _compare(options: argparse.Namespace) -> int:
    records = [(str(file), BenchRecord.read(file)) for file in options.records]
    rows = comparison.compare_records(records, options.across_machines)
    print(json.dumps({"rows": [asdict(row) for row in rows]}) if options.json else comparison.as_text(rows))
    return 1 if any(row.comparison.refusal for row in rows) else 0


def _scaling_main(arguments: list[str]) -> int:
    parser = CommandParser(
        prog="align-bench scaling",
        description="How the cost of one input grows with batch, length, threads, image size and number; with "
        "--texts, memory while so many texts stream through instead (exit code 1 where it is not flat).",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder that align-export wrote")
    parser.add_argument("--precision", default="fp32", help="variant of the bundle (default: fp32)")
    parser.add_argument("--samples", type=int, default=EFFORT.least, help="runs per figure (default: 7)")
    parser.add_argument("--seconds", type=float, default=EFFORT.seconds, help="after which a figure has to do")
    parser.add_argument("--texts", type=int, help="stream so many texts and watch the memory, e.g. 1000000")
    add_device_options(parser)
    add_output_options(parser)
    return run(parser, arguments, lambda options: _memory(options) if options.texts else _scaling(options))


def _about(bundle: Bundle, precision: str, device: str) -> dict[str, Any]:
    """What is measured, and on what; the load is that before the first run."""
    return {
        "machine": describe(device),
        "load_average": load_average(),
        "bundle": identity(bundle),
        "precision": precision,
    }


def _scaling(options: argparse.Namespace) -> int:
    bundle, effort = Bundle.open(options.bundle), Effort(options.samples, options.seconds)
    device, progress = resolve_device(options.device), Progress(options.quiet or options.json)
    about = _about(bundle, options.precision, device)
    points = measure_scaling(bundle, options.precision, device, effort, progress)
    if options.json:
        print(json.dumps(about | {"points": [asdict(point) for point in points]}))
    else:
        rows = [[point.tower, point.axis, point.at, f"{point.milliseconds:.3f}"] for point in points]
        print(table(["tower", "what grows", "to", "ms per input"], rows, right=(2, 3)))
    return 0


def _memory(options: argparse.Namespace) -> int:
    bundle, device = Bundle.open(options.bundle), resolve_device(options.device)
    about = _about(bundle, options.precision, device)
    with opened(bundle, options.precision, device, options.threads) as subject:
        use = stream_texts(subject, options.texts)
    if options.json:
        print(json.dumps(about | asdict(use) | {"growth": use.growth, "flat": use.flat}))
    else:
        first, last, growth = (value / 2**20 for value in (use.resident_bytes[0], use.resident_bytes[-1], use.growth))
        print(
            f"{use.texts} texts in {use.seconds:.0f} s: {first:.0f} MiB resident after a twentieth of them, {last:.0f} "
            f"MiB at the end; the second half grew by {growth:.1f} MiB: {'flat' if use.flat else 'NOT FLAT'}"
        )
    return 0 if use.flat else 1
