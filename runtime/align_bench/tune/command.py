"""The arguments and the body of ``align-bench tune``."""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from align_bench.machine import load_average
from align_bench.tune.candidates import batch_sizes, settings_to_try
from align_bench.tune.inputs import TowerInputs, built_in, own_images, own_texts
from align_bench.tune.lab import Lab, said_once
from align_bench.tune.report import TunedResult, TuneReport, entry_of
from align_bench.tune.search import Search
from align_runtime import golden
from align_runtime.bundle import Bundle
from align_runtime.commands.bundle_arguments import add_bundle_arguments, open_bundle
from align_runtime.console import add_output_options, device_name, say, say_json
from align_runtime.devices import AUTO, BACKENDS, resolve_device
from align_runtime.errors import ConfigurationError
from align_runtime.graph_entry import TOWERS
from align_runtime.hub import is_in_cache
from align_runtime.machine_key import MachineKey
from align_runtime.manifest import MANIFEST_NAME
from align_runtime.progress import Progress
from align_runtime.tuning import FILE_NAME, TARGETS, add_entry, read_tuning
from align_runtime.user_path import user_path

FLOOR = 0.99
THROUGHPUT = TARGETS[1]


def add_tune(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "tune",
        help="find the fastest settings on this machine that keep the accuracy",
        description="Find the fastest device, precision, threads, streams and batch size for each tower on this "
        "machine, among those whose embeddings stay close to FP32, and write them to a file that "
        "align_runtime.load(…, tuned=…) reads. Settings are chosen over the default only if they are faster by more "
        "than the noise.",
    )
    parser.set_defaults(body=tune)
    add_bundle_arguments(parser)
    add = parser.add_argument_group("what to find").add_argument
    target = "latency of one input, or throughput of many (default: throughput)"
    add("--target", choices=TARGETS, default=THROUGHPUT, help=target)
    floor = f"smallest cosine with FP32 that an embedding may have (default: {FLOOR})"
    add("--min-cosine", type=_cosine, default=FLOOR, metavar="COSINE", help=floor)
    add("--towers", nargs="+", choices=TOWERS, default=list(TOWERS), help="default: both")
    precisions = "default: all of the bundle, but fp16 on GPUs alone"
    add("--precisions", nargs="+", default=[], metavar="PRECISION", help=precisions)
    installed = "default: all that are installed"
    add("--devices", nargs="+", type=device_name, default=[], metavar="DEVICE", help=installed)
    add = parser.add_argument_group("inputs").add_argument
    images = (
        "images, or folders of them, to take time and accuracy on, 64 at most (default: JPEG files of 640x480 for "
        "time, the golden images of the bundle for accuracy)"
    )
    add("--images", nargs="+", type=user_path, default=[], metavar="PATH", help=images)
    texts = "texts, one per line, likewise (default: texts of 12 tokens, the golden texts)"
    add("--texts", type=user_path, metavar="FILE", help=texts)
    budget = (
        "about how long the search may take in all (default: 30 to 900 for each tower, by the number of settings and "
        "their speed)"
    )
    parser.add_argument("--seconds-budget", type=_seconds, metavar="SECONDS", help=budget)
    output = f"the file, to which the settings for this machine are added (default: {FILE_NAME} in the bundle)"
    parser.add_argument("-o", "--output", type=user_path, metavar="FILE", help=output)
    add_output_options(parser)


def _cosine(text: str) -> float:
    return _number(text, -1, 1)


def _seconds(text: str) -> float:
    return _number(text, 1, 1e6)


def _number(text: str, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"expected a number from {least:g} to {most:g}, got {text!r}")
    return value


def tune(options: argparse.Namespace) -> int:
    """Checks everything, searches for each tower, writes the file and prints the result."""
    devices = list(dict.fromkeys(resolve_device(device) if device == AUTO else device for device in options.devices))
    bundle = open_bundle(options, devices, complete=False)
    required = devices
    if options.manifest_sha256 is not None and not devices:  # the pin cannot stand for engines
        devices = [name for name, backend in BACKENDS.items() if not backend.has_engines]
    file = _output(options.output, bundle)
    machine, target = MachineKey.here(), options.target
    towers = [name for name in TOWERS if name in options.towers]
    tried = {
        name: settings_to_try(bundle, name, target, machine.cores, devices, list(dict.fromkeys(options.precisions)))
        for name in towers
    }
    inputs, answers = {name: _inputs(options, bundle, name) for name in towers}, golden.read(bundle)
    progress = Progress(options.quiet or options.json or not sys.stderr.isatty())
    before, results = load_average(), dict[str, TunedResult]()
    seconds = None if options.seconds_budget is None else options.seconds_budget / len(towers)
    with said_once():
        for name in towers:
            start = time.perf_counter()
            with progress.phase(f"{name}: {len(tried[name])} settings for {target}"):
                lab = Lab(bundle, name, target, inputs[name], answers)
                search = Search(
                    tried[name],
                    lab.open,
                    options.min_cosine,
                    seconds,
                    batch_sizes=partial(batch_sizes, name, target),
                    required=required,
                    show=progress.show,
                )
                chosen = search.run()
            held = "golden, own" if inputs[name].own else "golden"
            outcomes = list(search.outcomes.values())
            results[name] = TunedResult(chosen, outcomes, options.min_cosine, held, time.perf_counter() - start)
    date = datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds")
    entry = entry_of(machine, target, bundle.manifest.provenance.name, bundle.manifest_sha256, results, date)
    add_entry(file, entry)
    report = TuneReport(entry, results, (before, load_average()), file)
    if options.json:
        say_json(report.to_json())
    else:
        say(report.lines())
    return 0


def _inputs(options: argparse.Namespace, bundle: Bundle, tower: str) -> TowerInputs:
    if tower == "vision" and options.images:
        return own_images(options.images)
    if tower == "text" and options.texts is not None:
        return own_texts(options.texts)
    return built_in(bundle, tower)


def _output(output: Path | None, bundle: Bundle) -> Path:
    """The file to write, after a check, before minutes of work, that it can be written and extended.

    Raises:
        ConfigurationError: it cannot, or is not a file of settings.
    """
    file = output or bundle.folder / FILE_NAME
    advice = "" if output else "; name another file: --output FILE"
    if output is None and is_in_cache(bundle.folder / MANIFEST_NAME, bundle.folder.resolve()):
        raise ConfigurationError(f"{bundle.folder} is in the cache of the hub, where nothing else is written{advice}")
    if file.is_dir() or not file.parent.is_dir():
        raise ConfigurationError(f"--output: {file} is a folder, or its folder does not exist; expected a file")
    try:
        with TemporaryFile(dir=file.parent):  # os.access knows neither mounts nor what root may not do
            pass
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written ({error.strerror}){advice}") from None
    if os.path.lexists(file):
        read_tuning(file)
    return file
