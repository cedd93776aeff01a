"""``align-bench run``, ``show``, ``compare``, ``scaling`` and ``tune``: docs/bench.md and docs/tuning.md."""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from align_bench import comparison, metrics, summary
from align_bench.html_report import page
from align_bench.measure import estimate_seconds, measure, measure_peers
from align_bench.peers import check_peers
from align_bench.plan import QUICK, Plan
from align_bench.record import MEMORY, RUN, BenchRecord, read_result, write_json
from align_bench.scaling import (
    about,
    measure_scaling,
    memory_json,
    memory_of,
    memory_text,
    points_of,
    scaling_json,
    scaling_text,
    stream_texts,
)
from align_bench.subject import opened
from align_bench.timing import Effort
from align_bench.tune.command import add_tune
from align_runtime.bundle import Bundle
from align_runtime.commands.bundle_arguments import add_bundle_arguments, open_bundle
from align_runtime.console import (
    CommandParser,
    add_device_options,
    add_output_options,
    device_name,
    positive_int,
    run,
    say,
    say_json,
)
from align_runtime.devices import AUTO, resolve_device
from align_runtime.errors import ConfigurationError
from align_runtime.graph_entry import TOWERS
from align_runtime.progress import Progress
from align_runtime.standard_streams import complain
from align_runtime.user_path import user_path

DEFAULT = Plan()
ROUNDS = 8
PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]+)?) ?%?")


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 1 a regression or memory that grows, 2 a wrong call or input."""
    parser = CommandParser(prog="align-bench", description="Measure a bundle, and compare results.")
    commands = parser.add_subparsers(parser_class=CommandParser, metavar="COMMAND", required=True)
    _add_run(commands)
    _add_show(commands)
    _add_compare(commands)
    _add_scaling(commands)
    add_tune(commands)
    return run(parser, arguments, lambda options: int(options.body(options)))


def _add_run(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        help="measure latency, throughput, latency under load, start and memory of a bundle",
        description="Measure a bundle: latency by stage, throughput, latency under load, start and memory.",
    )
    parser.set_defaults(body=_run)
    add_bundle_arguments(parser)
    parser.add_argument("--quick", action="store_true", help="one text length, few samples, one start, no load loops")
    add = parser.add_argument_group("what to measure").add_argument
    add("--tower", nargs="+", choices=TOWERS, help="default: both")
    add("--precision", nargs="+", help="variants (default: all that the bundle has for the device)")
    add("--device", nargs="+", type=device_name, help="default: cpu; a GPU by its index: cuda:1")
    add("--batch", nargs="+", type=positive_int, help="inputs per call (default: 1 8)")
    add("--length", nargs="+", type=positive_int, help="tokens of a text (default: 12 64; quick: 12)")
    add("--image-size", nargs="+", help="WIDTHxHEIGHT of the JPEG files (default: 640x480)")
    add("--threads", type=positive_int, help="threads of one run of a graph (default: all cores)")
    add("--streams", type=positive_int, help="single-threaded runs side by side (default: one per thread; 1: none)")
    add = parser.add_argument_group("how long").add_argument
    add("--samples", type=positive_int, help="calls per case and stage (default: 30; quick: 7; 100 give a true p99)")
    add("--seconds", type=float, help="time limit per case and stage (default: 10; quick: 2)")
    add("--starts", type=int, help="fresh processes per variant (default: 3; quick: 1)")
    add = parser.add_argument_group("load").add_argument
    add("--clients", nargs="*", type=positive_int, help="threads of the closed loops (default: 1 2 4; quick: none)")
    rates = "shares of the throughput of the closed loops, for open loops (default: 0.25 0.5 0.75 0.9; quick: none)"
    add("--rates", nargs="*", type=float, help=rates)
    add("--load-seconds", type=float, help="duration of one loop (default: 5)")
    add = parser.add_argument_group("peers").add_argument
    peers = "peers to compare with: fp32, openvino, openvino-bf16, torch, torch-compile, onnx-plain"
    add("--against", type=lambda text: text.split(","), default=[], metavar="PEER,…", help=peers)
    add("--checkpoint", help="what the bundle was exported from, a folder or hub id, for peers that run it")
    add("--rounds", type=positive_int, default=ROUNDS, help=f"rounds against the peers (default: {ROUNDS})")
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o", "--output", type=user_path, metavar="FILE", help="write samples and percentiles to this JSON file"
    )
    _add_rendering(group)
    add_output_options(parser)


def _add_rendering(parser: argparse._ActionsContainer) -> None:
    """How a result is shown: the same for ``run`` and ``show``."""
    add = parser.add_argument
    add("--html", type=user_path, metavar="FILE", help="write a page with charts to this file")
    add("--csv", type=user_path, metavar="FILE", help="write percentiles to this CSV file")
    add("--full", action="store_true", help="print every table (default: at most 40 lines)")
    add("--max-latency", type=float, metavar="MS", help="bound on p95, in milliseconds, for the best throughput")


def _run(options: argparse.Namespace) -> int:
    outputs = {"--output": options.output, "--html": options.html, "--csv": options.csv}
    check_outputs(outputs)
    bundle = open_bundle(options, [device for device in options.device or () if device != AUTO])
    plan = _plan(options, bundle)
    plan.check(bundle)
    check_peers(bundle, options.against, options.checkpoint, options.rounds)
    progress = Progress(options.quiet or options.json)
    if not (options.quiet or options.json):
        _print_estimate(bundle, plan, options, progress)
    record = measure(bundle, plan, progress)
    if options.against:
        peers = measure_peers(bundle, plan, options.against, options.rounds, options.checkpoint, progress)
        record = replace(record, peer_comparisons=peers)
    if options.output:
        write_json(metrics.to_json(record, plan.max_latency_ms), options.output)
    _show_record(record, options)
    return 0


def _plan(options: argparse.Namespace, bundle: Bundle) -> Plan:
    """The default or the quick plan with what the options change; default lengths are those that the model takes."""
    base = QUICK if options.quick else DEFAULT
    limit = bundle.manifest.model.max_length
    lengths = options.length or [length for length in base.lengths if length <= limit] or [limit]
    several = {
        "towers": options.tower,
        "precisions": options.precision,
        "devices": options.device and [resolve_device(device) for device in options.device],
        "batches": options.batch,
        "lengths": lengths,
        "image_sizes": options.image_size,
        "clients": options.clients,
        "rates": [] if options.clients == [] else options.rates,
    }
    changes: dict[str, Any] = {
        name: tuple(dict.fromkeys(values)) for name, values in several.items() if values is not None
    }
    changes |= {name: getattr(options, name) for name in ("threads", "streams", "load_seconds", "starts")}
    effort = Effort(
        base.effort.samples if options.samples is None else options.samples,
        base.effort.seconds if options.seconds is None else options.seconds,
    )
    changes |= {"effort": effort, "max_latency_ms": options.max_latency}
    return replace(base, **{name: value for name, value in changes.items() if value is not None})


def _print_estimate(bundle: Bundle, plan: Plan, options: argparse.Namespace, progress: Progress) -> None:
    with progress.phase("estimating the duration"):
        seconds = estimate_seconds(bundle, plan, len(options.against), options.rounds)
    variants = [(precision, device) for device in plan.devices for precision in plan.variants(bundle, device)]
    cases = sum(len(list(plan.cases(*variant))) for variant in variants)
    loops = len(variants) * len(plan.towers) * (len(plan.clients) + len(plan.rates))
    duration = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
    starts = plan.starts * len(variants)
    counts = f"cases: {cases}, load loops: {loops}, fresh starts: {starts}"
    complain(f"about {duration} ({counts})")


def _show_record(record: BenchRecord, options: argparse.Namespace) -> None:
    if options.html:
        options.html.write_text(page(record, options.max_latency), encoding="utf-8")
    if options.csv:
        options.csv.write_text(metrics.to_csv(record), encoding="utf-8")
    bound = metrics.max_latency_of(record) if options.max_latency is None else options.max_latency
    _say(metrics.to_json(record, bound), summary.as_text(record, options.full, options.max_latency), options)


def _say(values: Any, text: str, options: argparse.Namespace) -> None:
    """The result as it was asked for: `values` as JSON, or `text`."""
    if options.json:
        say_json(values)
    else:
        say(text.split("\n"))


def check_outputs(files: dict[str, Path | None]) -> None:
    """Checks, before any work, that the files of these options can be written.

    Raises:
        ConfigurationError: a folder in place of a file, a folder that is missing, no permission, or one file for two
            options.
    """
    given = {option: file for option, file in files.items() if file is not None}
    for option, file in given.items():
        if file.is_dir():
            raise ConfigurationError(f"{option}: {file} is a folder; expected a file")
        if not file.parent.is_dir():
            raise ConfigurationError(f"{option}: the folder {file.parent} does not exist")
        if not os.access(file if file.exists() else file.parent, os.W_OK):
            raise ConfigurationError(f"{option}: no permission to write {file}")
    if len({file.resolve() for file in given.values()}) < len(given):
        raise ConfigurationError(f"expected different files for {', '.join(given)}")


def _add_show(commands: Any) -> None:
    parser = commands.add_parser(
        "show",
        help="print a stored result again, or write it as HTML or CSV",
        description="Print a result of align-bench again, or write it as HTML or CSV.",
    )
    parser.set_defaults(body=_show)
    parser.add_argument("result", metavar="RESULT.json", type=user_path, help="what run or scaling wrote with -o")
    _add_rendering(parser)
    parser.add_argument("--json", action="store_true", help="print the result, or the error, as one JSON object")


def _show(options: argparse.Namespace) -> int:
    check_outputs({"--html": options.html, "--csv": options.csv})
    _check_max_latency(options.max_latency)
    values, where = read_result(options.result), str(options.result)
    if values["kind"] == RUN:
        _show_record(BenchRecord.from_json(where, values), options)
        return 0
    if options.html or options.csv:
        raise ConfigurationError(f"{where}: only results of `align-bench run` become HTML or CSV")
    memory = values["kind"] == MEMORY
    text = memory_text(memory_of(where, values)) if memory else scaling_text(points_of(where, values))
    _say(values, text, options)
    return 0


def _check_max_latency(milliseconds: float | None) -> None:
    replace(DEFAULT, max_latency_ms=milliseconds)  # checks it


def _add_compare(commands: Any) -> None:
    parser = commands.add_parser(
        "compare",
        help="compare results with a baseline",
        description="Compare results of `align-bench run` with a baseline: latency, latency under load, start and peak "
        "memory. A change is quoted only where it is larger than the noise.",
    )
    parser.set_defaults(body=_compare)
    parser.add_argument("baseline", metavar="BASELINE.json", type=user_path, help="what run wrote with -o")
    parser.add_argument(
        "candidates", metavar="CANDIDATE.json", nargs="+", type=user_path, help="results to compare with it"
    )
    parser.add_argument("--fail-if-slower", type=_share, metavar="PERCENT", help="exit with 1 if a case is shown to be "
        "slower, or to take more memory, by more than this, or is missing on one side")  # fmt: skip
    parser.add_argument("--across-machines", action="store_true", help="compare results of different hardware too")
    parser.add_argument("--json", action="store_true", help="print the result, or the error, as one JSON object")


def _share(text: str) -> float:
    """The share that ``5%`` or ``5`` is."""
    match = PERCENT.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"expected a percentage as in 5%, got {text!r}")
    return float(match[1]) / 100


def _compare(options: argparse.Namespace) -> int:
    files: list[Path] = [options.baseline, *options.candidates]
    records = [(str(file), BenchRecord.read(file)) for file in files]
    report = comparison.compare_records(records, options.across_machines)
    tolerance: float | None = options.fail_if_slower
    _say(report.to_json(tolerance), comparison.as_text(report, tolerance), options)
    return 1 if tolerance is not None and report.fails(tolerance) else 0


def _add_scaling(commands: Any) -> None:
    parser = commands.add_parser(
        "scaling",
        help="time per input over batch, length, threads, image size and number of inputs; or memory over many texts",
        description="Time per input over batch, text length, threads, image size and number of inputs. With --texts: "
        "resident memory while that many texts stream through; the exit code is 1 if it grows.",
    )
    parser.set_defaults(body=_scaling)
    add_bundle_arguments(parser)
    parser.add_argument("--precision", default="fp32", help="variant of the bundle (default: fp32)")
    least, seconds = DEFAULT.effort.least, DEFAULT.effort.seconds
    parser.add_argument("--samples", type=positive_int, default=least, help=f"calls per value (default: {least})")
    parser.add_argument("--seconds", type=float, default=seconds, help="time limit per value (default: 10)")
    parser.add_argument("--texts", type=positive_int, help="stream this many texts and record memory, e.g. 1000000")
    parser.add_argument("-o", "--output", type=user_path, metavar="FILE", help="write the result to this JSON file")
    add_device_options(parser)
    add_output_options(parser)


def _scaling(options: argparse.Namespace) -> int:
    check_outputs({"--output": options.output})
    device, progress = resolve_device(options.device), Progress(options.quiet or options.json)
    bundle, effort = open_bundle(options, [device]), Effort(options.samples, options.seconds)
    Plan(precisions=(options.precision,), devices=(device,), lengths=(), threads=options.threads).check(bundle)
    known, flat = about(bundle, options.precision, device), True
    if options.texts:
        with opened(bundle, options.precision, device, options.threads) as subject:
            use = stream_texts(subject, options.texts)
        values, text, flat = memory_json(known, use), memory_text(use), use.flat
    else:
        points = measure_scaling(bundle, options.precision, device, effort, progress)
        values, text = scaling_json(known, points), scaling_text(points)
    if options.output:
        write_json(values, options.output)
    _say(values, text, options)
    return 0 if flat else 1
