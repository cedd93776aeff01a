"""The HTTP service against plain calls of the runtime."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from benchmarks.sections.layout import Section, table

SERVICE = "service"


def service_lines(result: Mapping[str, Any]) -> list[str]:
    """Throughput and latency of each candidate, and the service's throughput as a multiple of the others'."""
    rounds = result["rounds"]
    rates = {name: [one["calls"] / one["seconds"] for one in found] for name, found in rounds.items()}
    rows = []
    for name, found in rounds.items():
        ratio = median(ours / other for ours, other in zip(rates[SERVICE], rates[name], strict=True))
        p50, p99 = (1000 * median(one[key] for one in found) for key in ("p50", "p99"))
        rows.append([name, f"{median(rates[name]):.0f}", f"{p50:.1f}", f"{p99:.1f}", f"{ratio:.2f}"])
    served = [one for found in rounds.values() for one in found if "compared" in one]
    asked = sum(one["calls"] for one in served)
    failed, compared, wrong = (sum(one[key] for one in served) for key in ("failed", "compared", "wrong"))
    return [
        f"`{result['model']}`, {result['precision'].upper()}, texts: {result['clients']} connections of `wrk`, one "
        f"caption in each request, on the same cores as the service. Of {asked} requests {failed} failed; of "
        f"{compared} rows that were compared with plain calls meanwhile {wrong} were wrong. Latency of plain calls is "
        "that of a call.",
        "",
        *table(("candidate", "texts per second", "median, ms", "99th percentile, ms", "service / candidate"), rows),
    ]


SECTION = Section("HTTP service", "http", service_lines)
