"""Sections on GPUs: one for each result file of the GPU check, and none where no GPU has run it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from align_bench.interleaved import speedup
from align_bench.statistics import percentile
from benchmarks.result_files import read_json
from benchmarks.sections.layout import Section, milliseconds, table

PATTERN = "gpu-*.json"  # of the result files; a dry run is named otherwise
BASELINE = "torch eager"
SPEED = ("speed", "speed against torch.compile", "speed of INT8", "speed against autotuning")
ACCURACY = ("model, device", "tower", "precision", "max abs error", "min cosine")
OPTIONS = ("batch", "options", "s until ready", "p50, ms")
PACKAGES = ("torch", "onnxruntime-gpu", "tensorrt")
NOTHING = "**Nothing here was measured on a GPU.**"


def gpu_sections(folder: Path) -> tuple[Section, ...]:
    """A section for each GPU whose result lies in `folder`."""
    return tuple(
        Section(f"GPU check on {_name(read_json(file))}", file.stem, render) for file in sorted(folder.glob(PATTERN))
    )


def introduction(folder: Path) -> str:
    """What the head of the page says about GPUs."""
    names = [_name(read_json(file)) for file in sorted(folder.glob(PATTERN))]
    return f"On a GPU ({', '.join(names)}) only the GPU check was measured." if names else NOTHING


def render(result: Mapping[str, Any]) -> list[str]:
    """Time of each candidate by inputs, and how every step ended."""
    steps = {step["name"]: step for step in result["steps"]}
    rows = [row for name in SPEED for row in _rows(steps.get(name))]
    packages = [f"{name} {result['packages'][name]}" for name in PACKAGES if name in result["packages"]]
    ended = [f"{name} ({_ending(step['exit_code'])})" for name, step in steps.items() if step["exit_code"]]
    return [
        f"One {_name(result)}, driver {result['gpu']['driver_version']}; {', '.join(packages)}. Milliseconds from "
        "pixels or tokens in host memory to embeddings in host memory, published sizes, random weights.",
        "",
        *table(("tower", "batch", "candidate", "p50", "p95", "× torch eager"), rows),
        "",
        *_accuracy(steps),
        *_options(steps.get("options")),
        f"Steps that did not pass: {', '.join(ended)}." if ended else f"All {len(steps)} steps passed.",
    ]


def _rows(step: Mapping[str, Any] | None) -> list[tuple[str, ...]]:
    rows = []
    for case in (step or {}).get("result") or []:
        for name, seconds in case["seconds"].items():
            ratio = f"{speedup(case['seconds'][BASELINE], seconds):.2f}×"
            times = milliseconds(median(seconds)), milliseconds(percentile(seconds, 0.95))
            rows.append((case["tower"], str(case["batch"]), name, *times, ratio))
    return rows


def _accuracy(steps: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How far the GPU's embeddings of golden inputs are from the reference."""
    rows = [
        (
            name.removeprefix("verify "),
            check["tower"],
            check["variant"],
            f"{parity['max_abs']:.1e}",
            f"{parity['min_cosine']:.7f}",
        )
        for name, step in steps.items()
        if name.startswith("verify ")
        for check in (step["result"] or {}).get("checks", ())
        if (parity := check["parity"]) is not None
    ]
    return ["Against the reference:", "", *table(ACCURACY, rows), ""] if rows else []


def _options(step: Mapping[str, Any] | None) -> list[str]:
    """What the options of the CUDA provider do."""
    rows = [
        (
            str(case["batch"]),
            ", ".join(f"`{name}={value}`" for name, value in case["changes"].items()) or 'as `device="cuda"`',
            f"{case['ready']:.1f}",
            milliseconds(median(case["seconds"])),
        )
        for case in ((step or {}).get("result") or {}).values()
    ]
    return ["Vision in FP16 with other options:", "", *table(OPTIONS, rows), ""] if rows else []


def _name(result: Mapping[str, Any]) -> str:
    return str(result["gpu"]["name"])


def _ending(code: int) -> str:
    return {124: "ran past its limit", 125: "no time left"}.get(code, f"exit code {code}")
