"""The README's table of speed: ratios of contestants that took turns, against what was aimed at."""

from __future__ import annotations

from statistics import median
from typing import Any

from align_bench.statistics import compare_paired

HEADINGS = ("", "against", "times as fast", "95 % interval", "aim")
OTHERS = {
    "plain": "the plain export on ONNX Runtime",
    "openvino": "OpenVINO in float32",
    "openvino-bf16": "OpenVINO in bfloat16",
    "pipeline": "transformers' processor and eager model",
    "session": "the bare session",
}
# Case, ours, the other, at least so many times as fast, title.
AIMS = (
    ("pixels 8", "fp32", "plain", 1.15, "8 images, FP32"),
    ("pixels 8", "fp32", "openvino", 1.0, "8 images, FP32"),
    ("pixels 1", "fp32", "plain", 1.0, "1 image, FP32"),
    ("pixels 1", "fp32", "openvino", 0.95, "1 image, FP32"),
    ("pixels 1", "int8", "plain", 1.6, "1 image, INT8"),
    ("pixels 8", "int8", "plain", 2.4, "8 images, INT8"),
    ("pixels 8", "int8", "openvino-bf16", 1.2, "8 images, INT8"),
    ("captions", "fp32", "plain", 5.0, "128 captions, FP32; the other gets them padded to 64"),
    ("captions", "int8", "plain", 12.0, "128 captions, INT8; the other gets them padded to 64"),
    ("files 1", "fp32", "pipeline", 3.0, "1 JPEG file of 640×480, FP32"),
    ("files 8", "fp32", "pipeline", 3.0, "8 JPEG files of 640×480, FP32"),
    ("files 1", "int8", "pipeline", 5.0, "1 JPEG file of 640×480, INT8"),
    ("files 8", "int8", "pipeline", 5.0, "8 JPEG files of 640×480, INT8"),
    ("overhead vision fp32", "ours", "session", 0.98, "our Python around 1 image, FP32"),
    ("overhead vision int8", "ours", "session", 0.98, "our Python around 1 image, INT8"),
    ("overhead text fp32", "ours", "session", 0.98, "our Python around 1 text, FP32"),
    ("overhead text int8", "ours", "session", 0.98, "our Python around 1 text, INT8"),
)
START_AIMS = (("import_seconds", "`import align_runtime`", 0.3), ("load_seconds", "`load`, FP32", 2.0))


def rows_of(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row for every aim, with the ratio whether or not it reaches it, and a word where it is not to be trusted."""
    cases = {case["name"]: case["seconds"] for case in result["cases"]}
    rows: list[tuple[str, ...]] = []
    for name, ours, other, aim, title in AIMS:
        found = compare_paired(cases[name][other], cases[name][ours])
        doubt = " (within the noise)" if found.within_noise else ""
        interval = f"{found.low:.3f} … {found.high:.3f}"
        rows.append((title, OTHERS[other], f"{found.ratio:.3f}{doubt}", interval, f"≥ {aim:g}"))
    for key, title, aim in START_AIMS:
        values = [start[key] for start in result["starts"]]
        rows.append((title, "", f"{median(values):.2f} s", f"{min(values):.2f} … {max(values):.2f} s", f"≤ {aim:g} s"))
    return rows


def bench_lines(result: dict[str, Any]) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    """What stands above the table, its headings and its rows."""
    machine, load = result["machine"], result["load"]
    title = (
        f"The runtime on {machine['processor']}, {machine['cores']} cores, ONNX Runtime "
        f"{machine['versions']['onnxruntime']}, OpenVINO {machine['versions']['openvino']}, {machine['date'][:10]}; "
        f"{result['threads']} threads and as many streams for everyone, contestants in turns; load average "
        f"{load['before'][0]:.1f} before, {load['after'][0]:.1f} after:"
    )
    return title, HEADINGS, rows_of(result)
