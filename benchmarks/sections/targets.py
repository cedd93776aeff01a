"""Section: the runtime's speed against other runtimes, beside the targets that were set before measuring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from align_bench.statistics import Comparison, compare_paired
from benchmarks.sections.layout import Section, measured_on, plural, table

HEADINGS = ("workload", "precision", "baseline", "target")
OTHERS = "others"  # records of further processors
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


def records_of(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The records of ``bench.json``, one for each processor; the figures of the README are the first one's."""
    return [result, *result.get(OTHERS, ())]


def with_record(result: Mapping[str, Any] | None, record: dict[str, Any]) -> dict[str, Any]:
    """``bench.json`` with `record` in place of that of the same processor, or behind the others."""
    records = [{key: value for key, value in old.items() if key != OTHERS} for old in records_of(result or record)]
    processors = [old["machine"]["processor"] for old in records]
    if record["machine"]["processor"] in processors:
        records[processors.index(record["machine"]["processor"])] = record
    else:
        records.append(record)
    return {**records[0], OTHERS: records[1:]}


def target_rows(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """A row of the table for each target, reached or not, with a cell for each record."""
    rows: list[tuple[str, ...]] = []
    for target in TARGETS:
        cells = [interval_text(compare(record, target.case, target.candidate, target.baseline)) for record in records]
        baseline = BASELINES[target.baseline]
        rows.append((target.workload, target.precision, baseline, f"≥ {target.least:g}×", *cells))
    for key, title, most in START_TARGETS:
        seconds = [[start[key] for start in record["starts"]] for record in records]
        cells = [f"{median(values):.2f} s ({min(values):.2f} … {max(values):.2f})" for values in seconds]
        rows.append((title, "", "", f"≤ {most:g} s", *cells))
    return rows


def interval_text(found: Comparison) -> str:
    """The speedup as `speedup_text`, with its 95 % interval."""
    return f"{speedup_text(found)} [{found.low:.2f} … {found.high:.2f}]"


def missed_targets(record: Mapping[str, Any]) -> list[str]:
    """The targets that were not reached, each with the speedup that was. Those of INT8 are for processors with VNNI."""
    missed = []
    vnni = "vnni" in record["machine"]["processor"]
    for target in TARGETS:
        ratio = compare(record, target.case, target.candidate, target.baseline).ratio
        if ratio < target.least and (vnni or target.precision != "INT8"):
            missed.append(f"{target.workload} in {target.precision} ({ratio:.2f}×, target {target.least:g}×)")
    for key, title, most in START_TARGETS:
        seconds = median(start[key] for start in record["starts"])
        if seconds > most:
            missed.append(f"{title} ({seconds:.2f} s, target {most:g} s)")
    return missed


def processor_title(record: Mapping[str, Any]) -> str:
    """The processor with the first of its vector extensions, which tells processors of one name apart."""
    name, _, extensions = record["machine"]["processor"].partition(" (")
    return f"{name}, {extensions.partition(',')[0].removesuffix(')')}" if extensions else name


def render(result: Mapping[str, Any]) -> list[str]:
    """The table, and which targets were missed on which processor."""
    records = records_of(result)
    return [
        f"The runtime with {plural(result['threads'], 'thread')} and as many streams against other runtimes, with the "
        "same model and the same number of threads, in interleaved rounds. Normalization of pixels, tokenization of "
        "texts, and decoding of JPEG files are part of our time; the plain export and OpenVINO get tensors that are "
        "normalized or tokenized already, and transformers' pipeline gets the same JPEG files. A speedup has its 95 % "
        'interval behind it; it is "within noise" where the rounds vary by more than the difference, or the interval '
        "contains 1. For times the range of all samples. INT8 needs VNNI: its targets are not those of a processor "
        "without.",
        "",
        *table((*HEADINGS, *map(processor_title, records)), target_rows(records)),
        "",
        *(f"- {processor_title(record)}: {_missed(record)}" for record in records),
        *(("", "The other processors:") if records[1:] else ()),
        *(f"- {measured_on(record)}" for record in records[1:]),
    ]


def _missed(record: Mapping[str, Any]) -> str:
    missed = missed_targets(record)
    return f"targets missed: {'; '.join(missed)}." if missed else "all targets were reached."


SECTION = Section("Speed against other runtimes", "bench", render)
