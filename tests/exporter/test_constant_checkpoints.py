"""Checkpoints with equal, shared, missing and zero constants export in every variant, and are computed as such.

Each group of parameters is constant in turn, three groups of the text tower and three of the vision tower in each
checkpoint; then everything at once. Tracing is shared (see support/trace_cache.py), and two observers of eight are
tried.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

from align_bench.page.formatting import NBSP
from align_calibration.dataset.calibration_dataset import select_dataset
from align_calibration.observers import OBSERVERS
from align_exporter.engine.build import build_engines
from align_exporter.engine.toolkits import open_toolkits
from align_exporter.export_options import ExportOptions
from align_exporter.freshness import provenance
from align_exporter.pipeline import build_bundle
from align_reference.config import AlignConfig
from align_reference.model import AlignModel
from align_reference.source import resolve
from align_runtime.errors import BuildError, PrecisionError
from align_runtime.manifest import Manifest
from align_runtime.progress import Progress
from support import constant_checkpoints as made
from support.rtx import rtx_request

# Random weights say nothing about the accuracy of INT8 and little about that of FP16 where embeddings nearly collapse:
# the gate lets every finite number pass. FP32 has the limits of every export, FP16 a bound of the test's own; that INT8
# computes what it does with constants of its own is shown in test_merged_constants.py.
ANYTHING = {"parity_max_abs": {"fp16": 2.0, "int8": 2.0}, "parity_min_cosine": {"fp16": -1.0, "int8": -1.0}}
MIN_COSINE = {"fp32": 0.999999, "fp16": 0.999, "int8": -1.0}
Export = Callable[..., Manifest]


@pytest.fixture(scope="module")
def state() -> made.State:
    return made.base_state()


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Export]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("align_exporter.int8.calibrate.OBSERVERS", {name: OBSERVERS[name] for name in ("min-max", "MSE")})
        patch.setattr("align_exporter.int8.speed.ROUNDS", 2)
        patch.setattr("align_exporter.int8.first_layers.WORTH", 0.0)  # they stay float or not by what values cost

        def exported(
            state: made.State, folder: Path | None = None, progress: Progress | None = None, **options: Any
        ) -> Manifest:
            """Exports `state` to ``bundle`` in `folder`."""
            place = folder or tmp_path_factory.mktemp("constants")
            source = resolve(str(made.write(place / "checkpoint", state)))
            chosen = ExportOptions(**{"precisions": ("fp16", "int8"), **ANYTHING, **options})
            told = progress or Progress(quiet=True)
            return build_bundle(source, provenance(source, chosen), place / "bundle", chosen, told)

        yield exported


@pytest.fixture(scope="module")
def int8_macs(export: Export, state: made.State) -> dict[str, int]:
    """MACs in INT8 of the graphs whose constants are all different, by file."""
    return macs(export(state))


def macs(manifest: Manifest) -> dict[str, int]:
    return {graph.file: graph.content.macs["int8"] for graph in manifest.graphs if graph.variant == "int8"}


def check(manifest: Manifest) -> None:
    """All nine graphs are there; their embeddings are finite, and those of FP32 and FP16 near the reference."""
    assert len(manifest.graphs) == 9
    found = {graph.file: graph.parity.min_cosine for graph in manifest.graphs}
    assert all(found[graph.file] >= MIN_COSINE[graph.variant] for graph in manifest.graphs), found


Case = tuple[str, str]  # a group and what it is filled with


def combinations() -> list[tuple[Case, ...]]:
    """Cases of the text tower beside those of the vision tower, three of each, far apart; each at least once."""
    model = AlignModel(AlignConfig.from_dict(made.config()))
    parts = []
    for tower in (made.TEXT, made.VISION):
        left_out = {*made.COLLAPSING, made.OVERFLOWING}
        cases = [case for case in made.cases(model.state_dict(), tower) if case not in left_out]
        third = -(-len(cases) // 3)
        parts += [cases[:third], cases[third : 2 * third], cases[2 * third :]]
    return list(islice(zip(*map(cycle, parts), strict=False), max(map(len, parts))))


def constant(state: made.State, case: Case) -> made.State:
    group, fill = case
    return made.filled(state, made.groups(state, made.tower_of(group))[group], made.FILLS[fill])


@pytest.mark.slow
@pytest.mark.parametrize("cases", combinations(), ids=lambda cases: "-".join("=".join(case) for case in cases))
def test_constant_groups_export_in_every_variant(
    export: Export, state: made.State, int8_macs: dict[str, int], cases: tuple[Case, ...]
) -> None:
    changed = state
    for case in cases:
        changed = constant(changed, case)
    manifest = export(changed)
    check(manifest)
    assert macs(manifest) == int8_macs


@pytest.mark.parametrize("case", sorted(made.COLLAPSING), ids="=".join)
def test_a_tower_that_collapses_is_refused(export: Export, state: made.State, case: tuple[str, str]) -> None:
    with pytest.raises(BuildError, match="gives all built-in samples the same .* embedding"):
        export(constant(state, case))


@pytest.mark.slow
def test_a_tower_that_overflows_fp16_exports_without_it(export: Export, state: made.State) -> None:
    overflowing = constant(state, made.OVERFLOWING)
    with pytest.raises(PrecisionError, match="of its MACs are in float16"):
        export(overflowing)
    manifest = export(overflowing, precisions=("int8",), int8_device="cpu")
    assert [graph.exact_variant for graph in manifest.graphs if graph.tower == made.VISION] == ["fp32", "int8_cpu"]


SLOW_WHOLE = [name for name in made.WHOLE if name not in ("all of it", "text biases and gates zero")]


@pytest.mark.parametrize(
    "name", ["text biases and gates zero", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_WHOLE)]
)
def test_everything_at_once_exports_in_every_variant(
    export: Export, state: made.State, int8_macs: dict[str, int], name: str
) -> None:
    manifest = export(made.WHOLE[name](state))
    check(manifest)
    if "projection" not in name:  # equal projections are merged
        assert macs(manifest) == int8_macs


@pytest.mark.slow
@pytest.mark.parametrize("name", ["as initialized", "norms as initialized", "layers and blocks repeated", "all of it"])
def test_everything_at_once_exports_for_normalized_pixels(export: Export, state: made.State, name: str) -> None:
    check(export(made.WHOLE[name](state), pixel_input="float32"))


@pytest.mark.slow
def test_everything_at_once_meets_an_int8_target(export: Export, state: made.State, calibration_images: Path) -> None:
    dataset = select_dataset(calibration_images, None, limit=32, seed=0)
    check(export(made.WHOLE["all of it"](state), dataset=dataset, int8_min_cosine=0.9))


def test_engines_are_built_from_everything_at_once(export: Export, state: made.State, tmp_path: Path) -> None:
    check(export(made.WHOLE["all of it"](state), tmp_path))
    request = rtx_request("fp32", "fp16", "int8")
    outcomes = build_engines(tmp_path / "bundle", request, open_toolkits(request), False, Progress(quiet=True))
    assert [outcome.reason for outcome in outcomes] == ["no engine yet"] * 6


def test_what_an_optimization_does_not_find_is_reported(export: Export, state: made.State, tmp_path: Path) -> None:
    """Where query and key are one projection, the factor on their product stays: but for the last layer, whose query is
    that of the first token alone."""
    stream = io.StringIO()
    export(made.WHOLE["one projection for query and key"](state), tmp_path, Progress(stream=stream), precisions=())
    line = "  ! text fp32: the pass FoldQueryScale made 1 rewrites, expected 2; the graph is correct without"
    assert line in stream.getvalue()
    record = json.loads((tmp_path / "bundle" / "report.json").read_text())
    passes = {entry["graph"]["file"]: entry["passes"] for entry in record["graphs"]}
    assert {"name": "FoldQueryScale", "rewrites": 1, "expected": 2} in passes["onnx/text_model.onnx"]
    assert {"name": "GlobalPool", "rewrites": 5, "expected": 5} in passes["onnx/vision_model.onnx"]
    page = (tmp_path / "bundle" / "report.html").read_text()
    assert f"FoldQueryScale{NBSP}1 of 2 (optional)" in page
