"""Layout that all sections share: Markdown tables, figures as text, and the line that says what was measured on."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

PACKAGES = ("onnxruntime", "openvino", "torch")
LONG_NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "torch": "PyTorch"}


@dataclass(frozen=True)
class Section:
    """One question and its answer.

    Attributes:
        title: heading of the section.
        source: name of the result file without ``.json``; ``"evaluation"`` is that of align-tiny.
        render: makes the section's lines from the content of that file, without the heading and the line on hardware.
    """

    title: str
    source: str
    render: Callable[[Mapping[str, Any]], list[str]]

    @property
    def path(self) -> str:
        """Where the result file lies, from the root of the repository."""
        folder = "reference/align-tiny" if self.source == "evaluation" else "benchmarks/results"
        return f"{folder}/{self.source}.json"

    @property
    def anchor(self) -> str:
        """The fragment by which GitHub links to the heading."""
        return re.sub(r"[^\w\- ]", "", self.title.lower()).replace(" ", "-")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table.

    Raises:
        ValueError: a row with more or fewer cells than there are headings.
    """
    for row in rows:
        if len(row) != len(headings):
            raise ValueError(f"expected {len(headings)} cells, got {len(row)}: {row}")
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in (headings, *rows)]
    lines.insert(1, "|" + "---|" * len(headings))
    return lines


def measured_on(result: Mapping[str, Any]) -> str:
    """Hardware, versions and date of a result, and the load average where it was recorded."""
    machine = result["machine"]
    versions = [f"{LONG_NAMES[name]} {machine['versions'][name]}" for name in PACKAGES if name in machine["versions"]]
    load = _load_averages(result)
    return (
        f"Measured on {machine['date'][:10]}: {machine['processor']}, {plural(machine['cores'], 'core')}; "
        f"{', '.join(versions)}"
        f"{f'; load average {load}' if load else ''}."
    )


def _load_averages(result: Mapping[str, Any]) -> str:
    if "load" in result:
        before, after = (result["load"][when][0] for when in ("before", "after"))
        return f"{before:.1f} before, {after:.1f} after"
    recorded = result.get("load_average")
    if isinstance(recorded, list) and None not in recorded:
        return f"{recorded[0]:.1f} before, {recorded[1]:.1f} after"
    return f"{recorded:.1f} before" if isinstance(recorded, float) else ""


def hardware(result: Mapping[str, Any]) -> str:
    """Processor without its vector extensions, and cores: ``"AMD EPYC, 2 cores"``."""
    machine = result["machine"]
    return f"{machine['processor'].partition(' (')[0]}, {plural(machine['cores'], 'core')}"


def cosine(value: float) -> str:
    """Five digits, rounded down: 0.999998 must not become 1."""
    return f"{math.floor(value * 1e5) / 1e5:.5f}"


def share(value: float) -> str:
    """A share as a percentage with one decimal; ``"100 %"`` and ``"0 %"`` are exact, never rounded."""
    if value in (0, 1):
        return f"{100 * value:.0f} %"
    return f"{min(max(100 * value, 0.1), 99.9):.1f} %"


def mebibytes(count: float) -> str:
    """Bytes as MiB."""
    return f"{count / 2**20:.0f} MiB"


def gibibytes(count: float) -> str:
    """Bytes as GiB."""
    return f"{count / 2**30:.2f} GiB"


def milliseconds(seconds: float) -> str:
    """Milliseconds with three digits or more: ``0.123``, ``12.3``, ``1234``."""
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def median_and_worst(values: Sequence[float], digits: int, worst: Callable[[Sequence[float]], float] = min) -> str:
    """The median, and the worst value in brackets where there are several: ``"0.9932 (0.9929)"``."""
    typical = f"{median(values):.{digits}f}"
    return f"{typical} ({worst(values):.{digits}f})" if len(values) > 1 else typical


def plural(count: int, noun: str) -> str:
    """``"1 thread"``, ``"2 threads"``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
