"""Measures what each step of the INT8 export contributes; writes ``benchmarks/results/ablation.json``.

    python -m benchmarks.measure_ablation [align-tiny lite1 …] [--seeds 0 1 2]

Each graph is made with all steps, with all but one, and with none, and compared with the FP32 graph on held-out samples
(see benchmarks.trained_draws). A step is left out by putting something that does nothing in its place. Everything but
INT8 is float32 here, also in the graph for TensorRT. Results of other checkpoints and draws stay in the file.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import onnx_ir as ir

from align_calibration.observers import min_max
from align_calibration.statistics_cache import StatisticsCache
from align_exporter.int8 import calibrate, first_layers, prepare_weights
from align_exporter.int8.build import FOR_CPU, FOR_TENSORRT
from align_exporter.int8.calibration_samples import Calibration
from align_exporter.int8.fold_normalization import fold_normalization
from align_exporter.int8.migrate_outliers import MIGRATIONS
from align_runtime.progress import Progress
from benchmarks.peers.calibrated import TOWERS
from benchmarks.result_files import RESULTS, ROOT, describe_machine, read_json, write_result
from benchmarks.trained_draws import MATERIALS, Draw, fidelity

# What takes the place of a step: the module that calls it, the name there, and something that does nothing.
STEPS: Mapping[str, tuple[object, str, object]] = {
    "ranges by layer outputs": (calibrate, "scales_by_outputs", lambda *arguments: {}),
    "the best of eight observers": (calibrate, "OBSERVERS", {"min-max": min_max}),
    "ranges by what readers see": (calibrate, "visible_through", lambda graph: {}),
    "weights rounded together": (prepare_weights, "replace_weights", lambda *arguments: None),
    "outlier channels moved": (prepare_weights, "MIGRATIONS", {"none": MIGRATIONS["none"]}),
    "first layers in float": (first_layers, "WORTH", 0.0),
}
# Those that have an effect on a graph. For TensorRT nothing is quantized that is read through a function of single
# values alone; text for CPUs has no scales, and for TensorRT one observer; outlier channels are those of dense layers.
OUTPUTS, OBSERVERS, RANGES, WEIGHTS, OUTLIERS, FIRST = STEPS
STEPS_OF = {
    ("vision", "cpu"): (OUTPUTS, OBSERVERS, RANGES, WEIGHTS, FIRST),
    ("vision", "cuda"): (OUTPUTS, OBSERVERS, WEIGHTS, FIRST),
    ("text", "cpu"): (WEIGHTS, OUTLIERS),
    ("text", "cuda"): (WEIGHTS, OUTLIERS),
}
ALL, NONE = "nothing", "all of these"


def without(tower: str, device: str) -> dict[str, tuple[str, ...]]:
    """By what is left out of the graph, the names of those steps."""
    steps = STEPS_OF[tower, device]
    return {ALL: (), **{step: (step,) for step in steps}, NONE: steps}


def quantize(draw: Draw, tower: str, device: str, left_out: tuple[str, ...]) -> Path:
    """Writes the INT8 graph that is made without the steps `left_out`."""
    model = ir.load(draw.graph(tower, "fp32", device))
    ir.external_data.load_to_model(model)
    cache = StatisticsCache(draw.folder / "statistics", print)
    calibration = Calibration(draw.calibration(tower), draw.folder, cache, Progress(quiet=True))
    method = (FOR_CPU if device == "cpu" else FOR_TENSORRT)[tower]
    with ExitStack() as stack:
        for step in left_out:
            stack.enter_context(patch.object(*STEPS[step]))
        if (tower, device) == ("vision", "cpu"):
            fold_normalization(model)
        method = prepare_weights.prepare_weights(model, method, calibration).method
        tensors = method.tensors(model.graph)
        if tensors:
            histograms = calibration.histograms(model, tensors)
            choice = calibrate.choose_scales(model, method, histograms, calibration)
            method.apply(model, choice.scales, first_layers.first_layers(model, method, choice))
        else:
            method.apply(model, {}, ())
    file = draw.folder / f"{tower}_{device}.onnx"
    ir.save(model, file)
    return file


def measure(draw: Draw) -> Iterator[dict[str, Any]]:
    """A record for each graph and set of steps that are left out."""
    draw.export(("fp32",))
    for tower in TOWERS:
        exact = draw.embeds(tower, draw.graph(tower, "fp32"))
        for device in ("cpu", "cuda"):
            for name, steps in without(tower, device).items():
                record = {"tower": tower, "device": device, "without": name}
                record |= fidelity(draw.embeds(tower, quantize(draw, tower, device, steps)), exact)
                print(f"{draw.checkpoint}, seed {draw.seed}: {record}", flush=True)
                yield record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", default=list(MATERIALS), help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="a draw of calibration data for each seed")
    parser.add_argument("--samples", type=int, default=128, help="calibration images and captions (default: 128)")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "ablation", help="samples and graphs")
    arguments = parser.parse_args()
    file = RESULTS / "ablation.json"
    result = read_json(file) if file.is_file() else {"checkpoints": {}}
    for checkpoint in arguments.checkpoints:
        for seed in arguments.seeds:
            draw = Draw(checkpoint, seed, arguments.samples, arguments.folder.resolve() / checkpoint / str(seed))
            records = list(measure(draw))
            about = result["checkpoints"].setdefault(checkpoint, {})
            if about.get("samples") != arguments.samples:
                about |= {"samples": arguments.samples, "draws": {}}
            about["draws"][str(seed)] = records
            result["machine"] = describe_machine()
            write_result("ablation", result)


if __name__ == "__main__":
    main()
