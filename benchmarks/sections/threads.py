"""How threads wait for each other within a run, and how runs share the cores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from align_bench.statistics import compare_paired
from benchmarks.sections.layout import Section, milliseconds, plural, table
from benchmarks.sections.targets import interval_text

SLEEPING, SPINNING, ONE_CORE = "all cores, sleeping", "all cores, spinning", "one core each"


def thread_lines(result: Mapping[str, Any]) -> list[str]:
    """Latency of a run that is alone, and throughput of runs beside each other."""
    alone = [
        (
            case["graph"],
            *(f"{milliseconds(median(case['seconds'][name]))} ms" for name in (SLEEPING, SPINNING)),
            interval_text(compare_paired(case["seconds"][SLEEPING], case["seconds"][SPINNING])),
        )
        for case in result["alone"]
    ]
    beside = [
        (
            f"{case['graph']}, {case['callers']} callers",
            f"{median(case['rates'][SLEEPING]):.1f}/s",
            *(_gain(case["rates"], name) for name in (SPINNING, ONE_CORE)),
        )
        for case in result["beside"]
    ]
    return [
        f"The graphs for CPUs in the published sizes, one image or one caption of {result['tokens']} tokens, with "
        f"{plural(result['cores'], 'thread')}. Between two operators a thread has to wait for the other ones. To wake "
        "one that sleeps takes longer than many an operator, above all in a virtual machine; one that spins for up to "
        "a millisecond needs not be woken. The runtime lets threads spin where ONNX Runtime can limit it (from 1.26 "
        "on).",
        "",
        *table(("alone", "sleeping", "spinning", "speedup and its 95 % interval"), alone),
        "",
        "Where several callers run at once, a thread that spins takes a core from them. So a run that comes while "
        "others are computed gets one core instead of all (unless the model was loaded with `streams=1`). Runs per "
        "second of all callers together, and the ratio to it:",
        "",
        *table(("beside each other", SLEEPING, SPINNING, ONE_CORE), beside),
    ]


def _gain(rates: Mapping[str, Sequence[float]], name: str) -> str:
    return f"{median(ours / before for before, ours in zip(rates[SLEEPING], rates[name], strict=True)):.2f}×"


SECTION = Section("Threads", "threads", thread_lines)
