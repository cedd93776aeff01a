"""Sections on memory: by options of `load`, and over many texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.sections.layout import Section, mebibytes, table

STEPS = ("loaded", "called", "closed", "peak")


def resident_lines(result: Mapping[str, Any]) -> list[str]:
    """Resident memory of a process by options of `load`."""
    rows: Sequence[Sequence[str]] = [
        [_call(row["options"]), *(mebibytes(row[step]) for step in STEPS)] for row in result["rows"]
    ]
    return [
        "A fresh process in the published sizes with `threads=2`: resident memory after `load`, after ten calls with "
        "64 captions and with 4 images, and after `close`. The imports alone take "
        f"{mebibytes(result['rows'][0]['imported'])}.",
        "",
        *table(("`load(bundle, …)`", "after load", "after calls", "after close", "peak"), rows),
    ]


def _call(options: Mapping[str, Any]) -> str:
    """The options as they are written in a call."""
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    return f"`{', '.join(f'{key}={value!r}' for key, value in values.items())}`" if values else "(defaults)"


def memory_lines(result: Mapping[str, Any]) -> list[str]:
    """Resident memory while many texts stream through the model."""
    first, last = (result["resident_bytes"][place] for place in (0, -1))
    return [
        "Memory does not grow with the number of texts when results are taken part by part.",
        "",
        *table(
            ("texts", "time", "resident after 5 % of the texts", "at the end", "growth in the second half"),
            [
                (
                    f"{result['texts']:,}",
                    f"{result['seconds']:.0f} s",
                    mebibytes(first),
                    mebibytes(last),
                    f"{result['growth'] / 2**20:.1f} MiB",
                )
            ],
        ),
    ]


SECTIONS = (
    Section("Memory by options", "resident", resident_lines),
    Section("Memory over a million texts", "memory", memory_lines),
)
