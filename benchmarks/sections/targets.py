"""Section: the runtime's speed against other runtimes, beside the targets that were set before measuring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from align_bench.statistics import Comparison, compare_paired
from benchmarks.sections.layout import Section, plural, table

HEADINGS = ("workload", "precision", "baseline", "speedup", "95 % interval", "target")
BASELINES = {
    "plain": "plain `torch.onnx.export` on ONNX Runtime",
    "openvino": "OpenVINO in FP32",
    "openvino-bf16": "OpenVINO in bfloat16",
    "pipeline": "transformers' processor and eager PyTorch",
    "session": "the bare ONNX Runtime session",
}


@dataclass(frozen=True)
class Target:
    """A speedup to reach.

    Attributes:
        case, candidate, baseline: as they are named in the result file.
        least: the speedup that was asked for.
        workload, precision: as the table says it.
    """

    case: str
    candidate: str
    baseline: str
    least: float
    workload: str
    precision: str


CAPTIONS, ONE_FILE, FILES = (
    "128 captions, baseline padded to 64 tokens",
    "1 JPEG file, 640×480",
    "8 JPEG files, 640×480",
)
OVERHEAD_IMAGE, OVERHEAD_TEXT = "runtime overhead, 1 image", "runtime overhead, 1 text"
TARGETS = (
    Target("pixels 8", "fp32", "plain", 1.15, "8 images", "FP32"),
    Target("pixels 8", "fp32", "openvino", 1.0, "8 images", "FP32"),
    Target("pixels 1", "fp32", "plain", 1.0, "1 image", "FP32"),
    Target("pixels 1", "fp32", "openvino", 0.95, "1 image", "FP32"),
    Target("pixels 1", "int8", "plain", 1.6, "1 image", "INT8"),
    Target("pixels 8", "int8", "plain", 2.4, "8 images", "INT8"),
    Target("pixels 8", "int8", "openvino-bf16", 1.2, "8 images", "INT8"),
    Target("captions", "fp32", "plain", 5.0, CAPTIONS, "FP32"),
    Target("captions", "int8", "plain", 12.0, CAPTIONS, "INT8"),
    Target("files 1", "fp32", "pipeline", 3.0, ONE_FILE, "FP32"),
    Target("files 8", "fp32", "pipeline", 3.0, FILES, "FP32"),
    Target("files 1", "int8", "pipeline", 5.0, ONE_FILE, "INT8"),
    Target("files 8", "int8", "pipeline", 5.0, FILES, "INT8"),
    Target("overhead vision fp32", "ours", "session", 0.98, OVERHEAD_IMAGE, "FP32"),
    Target("overhead vision int8", "ours", "session", 0.98, OVERHEAD_IMAGE, "INT8"),
    Target("overhead text fp32", "ours", "session", 0.98, OVERHEAD_TEXT, "FP32"),
    Target("overhead text int8", "ours", "session", 0.98, OVERHEAD_TEXT, "INT8"),
)
# Key in the result file, title, at most so many seconds.
START_TARGETS = (("import_seconds", "`import align_runtime`", 0.3), ("load_seconds", "`load`, FP32", 2.0))


def compare(result: Mapping[str, Any], case: str, candidate: str, baseline: str) -> Comparison:
    """The candidate against the baseline in one case of ``bench.json``.

    Raises:
        KeyError: no such case or candidate.
    """
    seconds = {entry["name"]: entry["seconds"] for entry in result["cases"]}[case]
    return compare_paired(seconds[baseline], seconds[candidate])


def speedup_text(comparison: Comparison) -> str:
    """The speedup, marked where it is within noise."""
    return f"{comparison.ratio:.2f}×{' (within noise)' if comparison.within_noise else ''}"


def target_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row of the table for each target, reached or not."""
    rows: list[tuple[str, ...]] = []
    for target in TARGETS:
        found = compare(result, target.case, target.candidate, target.baseline)
        interval = f"{found.low:.2f} … {found.high:.2f}"
        baseline = BASELINES[target.baseline]
        rows.append(
            (target.workload, target.precision, baseline, speedup_text(found), interval, f"≥ {target.least:g}×")
        )
    for key, title, most in START_TARGETS:
        values = [start[key] for start in result["starts"]]
        interval = f"{min(values):.2f} … {max(values):.2f} s (range)"
        rows.append((title, "", "", f"{median(values):.2f} s", interval, f"≤ {most:g} s"))
    return rows


def missed_targets(result: Mapping[str, Any]) -> list[str]:
    """The targets that were not reached, each with the speedup that was."""
    missed = []
    for target in TARGETS:
        ratio = compare(result, target.case, target.candidate, target.baseline).ratio
        if ratio < target.least:
            missed.append(f"{target.workload} in {target.precision} ({ratio:.2f}×, target {target.least:g}×)")
    for key, title, most in START_TARGETS:
        seconds = median(start[key] for start in result["starts"])
        if seconds > most:
            missed.append(f"{title} ({seconds:.2f} s, target {most:g} s)")
    return missed


def render(result: Mapping[str, Any]) -> list[str]:
    """The table, and which targets were missed."""
    missed = missed_targets(result)
    return [
        f"The runtime with {plural(result['threads'], 'thread')} and as many streams against other runtimes, with the "
        "same model and the same number of threads, in interleaved rounds. Normalization of pixels, tokenization of "
        "texts, and decoding of JPEG files are part of our time; the plain export and OpenVINO get tensors that are "
        "normalized or tokenized already, and transformers' pipeline gets the same JPEG files. "
        'A speedup is "within noise" where the rounds vary by more than the difference, or the interval contains 1.',
        "",
        *table(HEADINGS, target_rows(result)),
        "",
        f"Targets missed: {'; '.join(missed)}." if missed else "All targets were reached.",
    ]


SECTION = Section("Speed against other runtimes", "bench", render)
