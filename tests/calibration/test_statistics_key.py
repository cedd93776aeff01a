"""The key of cached statistics: equal for equal content, different for anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from align_calibration import statistics_cache
from align_calibration.histograms import BINS
from align_calibration.run_instrumented import Batch
from align_calibration.statistics_cache import statistics_key
from support.graphs import CHAIN, typed

TENSORS = ["x", "a", "b", "c", "y"]
SAMPLES = 6


def samples(seed: int = 0) -> list[Batch]:
    rows = np.random.default_rng(seed).standard_normal((SAMPLES, 1, 4)).astype(np.float32)
    return [{"x": row} for row in rows]


def changed_weight(model: ir.Model) -> None:
    value = model.graph.initializers["w"]
    weights = value.const_value.numpy().copy()
    weights[1, 2] = np.nextafter(weights[1, 2], 2, dtype=np.float32)
    value.const_value = ir.tensor(weights, name="w")


def changed_operator(model: ir.Model) -> None:
    next(node for node in model.graph if node.op_type == "Sigmoid").op_type = "Tanh"


def key(change: Callable[[ir.Model], None] = lambda _: None, batches: list[Batch] | None = None, **more: float) -> str:
    model = typed(CHAIN)
    change(model)
    return statistics_key(model, TENSORS, batches or samples(), {"bins": BINS, **more})


def test_equal_content_has_the_same_key() -> None:
    assert key() == key()
    assert len(key()) == 64


def test_any_difference_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    disturbed = samples()
    disturbed[3] = {"x": np.nextafter(disturbed[3]["x"], 9, dtype=np.float32)}
    others = [
        key(changed_weight),
        key(changed_operator),
        key(batches=samples(seed=1)),
        key(batches=disturbed),
        key(batches=samples()[::-1]),
        key(batches=samples()[:-1]),
        key(batches=[{"x": batch["x"].astype(np.float64)} for batch in samples()]),
        key(bins=1024),
        key(outliers=0.0),
        statistics_key(typed(CHAIN), TENSORS[::-1], samples(), {"bins": BINS}),
        statistics_key(typed(CHAIN), TENSORS[:-1], samples(), {"bins": BINS}),
    ]
    for name, value in (("onnxruntime.__version__", "0.0"), ("machine", lambda: "another"), ("FORMAT", 0)):
        with monkeypatch.context() as patch:
            patch.setattr(f"{statistics_cache.__name__}.{name}", value)
            others.append(key())
    assert len({key(), *others}) == 1 + len(others)


def test_the_key_covers_weights_in_another_file(tmp_path: Path) -> None:
    def stored(name: str, change: Callable[[ir.Model], None]) -> str:
        model, file = typed(CHAIN), tmp_path / name / "graph.onnx"
        change(model)
        file.parent.mkdir()
        ir.save(model, file, external_data="graph.onnx_data", size_threshold_bytes=0)
        return statistics_key(ir.load(file), TENSORS, samples(), {})

    assert stored("one", lambda _: None) == stored("two", lambda _: None)
    assert stored("three", changed_weight) != stored("four", lambda _: None)


def test_another_version_of_this_package_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A histogram that is counted in another way is not read from the cache."""
    before = key()
    monkeypatch.setattr(statistics_cache, "_own_hash", lambda: "0" * 12)
    assert key() != before
