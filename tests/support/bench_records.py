"""Records made up for tests: thirty samples around a given time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from align_bench.record import BenchRecord, Case, Load, PeerComparison, Start, Timing

CASE = Case("vision", "fp32", "cpu", 8, "640x480", None, 2)
MACHINE = {
    "date": "2026-11-25T12:00:00+00:00",
    "processor": "a processor <with a name>",
    "cores": 2,
    "gpu": None,
    "versions": {"numpy": "2.4"},
}


def record(seconds: float = 0.1, noise: float = 0.01, **changes: Any) -> BenchRecord:
    """A record with two cases, one start, a closed and two open loops, and one peer at half the speed."""
    samples = tuple(seconds * (1 + noise * np.random.default_rng(1).random(30)))
    stages = {"decode": samples, "compute": samples, "end to end": samples}
    text = replace(CASE, tower="text", size="12", batch=1)
    made = BenchRecord(
        machine=MACHINE,
        load_average=(0.1, None),
        bundle={"name": "align-tiny", "manifest_sha256": "0123456789abcdef"},
        settings={"threads": None},
        timings=(Timing(CASE, stages, 12, True), Timing(text, {"end to end": samples}, 40, False)),
        starts=(Start("fp32", "cpu", 0.1, 0.5, {"vision": 0.2, "text": 0.1}, 2**28),),
        loads=(
            Load("vision", "fp32", "cpu", "closed", 2, None, 2.0, (0.1, 0.2)),
            Load("vision", "fp32", "cpu", "open", 0, 5.0, 2.0, (0.1, 0.2)),
            Load("vision", "fp32", "cpu", "open", 0, 9.0, 2.0, (0.1, 0.4)),
        ),
        peer_comparisons=(
            PeerComparison(
                CASE, {"align-onnx": samples, "other": tuple(2 * value for value in samples)}, {"other": 0.0}
            ),
        ),
    )
    return replace(made, **changes)
