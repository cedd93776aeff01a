"""Builds the engines of a bundle that are missing or stale, and verifies each one.

The steps for one graph:

1. keep the engine that exists, if it is up to date;
2. check that the graph is the file of the manifest and follows TensorRT's rules;
3. build the plan;
4. verify the precision of its layers and, where TensorRT runs it, its parity with the reference;
5. put the plan and its description into ``engines/``.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from align_exporter import parity_gate as gate
from align_exporter.engine.builder import build_plan, parse_graph
from align_exporter.engine.request import EngineOutcome, EngineRequest, engine_staleness, profiles_of
from align_exporter.engine.toolkits import Toolkit
from align_exporter.graph.content import product_types
from align_exporter.graph.specs import GraphContract
from align_exporter.trt_lint import check_tensorrt
from align_runtime import golden
from align_runtime.backends.tensorrt.runner import TensorRtRunner
from align_runtime.bundle import Bundle
from align_runtime.engine_files import TIMINGS, engines_folder, put_engine
from align_runtime.engines import ENGINES, EngineEntry, Shapes, source_of
from align_runtime.graph_entry import TOWERS, Graph
from align_runtime.parity import Parity
from align_runtime.progress import Progress


def build_engines(
    folder: Path, request: EngineRequest, toolkits: Sequence[Toolkit], force: bool, progress: Progress
) -> list[EngineOutcome]:
    """Builds the engines of `request` in the bundle `folder` and returns them. Other engines stay as they are.

    Args:
        toolkits: what builds them, as `open_toolkits` returns it.
        force: build engines that are up to date too.

    Raises:
        ConfigurationError: a variant that the bundle does not hold, or lengths that do not fit its model.
        BuildError: a graph that breaks a rule of TensorRT, or that TensorRT cannot read or build.
        PrecisionError, ParityError: an engine in another precision than its label, or too far from the reference; it
            is discarded.
    """
    bundle = Bundle.open(folder)
    variants = request.variants or tuple(dict.fromkeys(graph.variant for graph in bundle.graphs_on("tensorrt")))
    graphs = [bundle.graph(tower, variant, "tensorrt") for variant in variants for tower in TOWERS]
    longest = bundle.manifest.model.max_length
    profiles = [profiles_of(graph, request, longest) for graph in graphs]  # all are checked before the first build
    builders = [EngineBuilder(bundle, request, toolkit, force, progress) for toolkit in toolkits]
    return [
        builder.update(graph, shapes) for graph, shapes in zip(graphs, profiles, strict=True) for builder in builders
    ]


@dataclass(frozen=True)
class EngineBuilder:
    """Builds engines of one bundle with one toolkit."""

    bundle: Bundle
    request: EngineRequest
    toolkit: Toolkit
    force: bool
    progress: Progress

    def update(self, graph: Graph, profiles: tuple[Shapes, ...]) -> EngineOutcome:
        """Returns the engine of `graph`, which is built unless it is up to date."""
        wanted = (graph.tower, graph.variant)
        source = source_of(self.bundle, graph)
        found, reason = engine_staleness(
            self.bundle, wanted, source, self.toolkit.machine, self.request.options, profiles
        )
        if found is not None and not self.force:
            return EngineOutcome(found, None)
        return EngineOutcome(self._build(graph, profiles), reason or "--force")

    def _build(self, graph: Graph, profiles: tuple[Shapes, ...]) -> EngineEntry:
        folder, toolkit, options = self.bundle.folder, self.toolkit, self.request.options
        graph_file = self.bundle.graph_file(graph, check_hashes=True)
        check_tensorrt(graph_file)  # an older exporter may have known fewer rules
        place = toolkit.machine.place
        title = f"{graph.tower} {graph.variant} engine"
        start = time.monotonic()
        with self.progress.phase(f"{title}: build"):
            parsed = parse_graph(toolkit, graph_file)
            timings = engines_folder(folder) / f"{place}{TIMINGS}"
            plan = build_plan(toolkit, parsed, profiles, options, timings, self.progress)
        seconds = time.monotonic() - start
        entry = EngineEntry(
            tower=graph.tower,
            variant=graph.variant,
            source=source_of(self.bundle, graph),
            file=f"{ENGINES}/{graph.tower}_{graph.variant}.{place}.plan",
            bytes=len(plan),
            sha256=hashlib.sha256(plan).hexdigest(),
            machine=toolkit.machine,
            options=options,
            profiles=profiles,
            seconds=round(seconds, 3),
            products={},
            parity=None,
            limits=graph.limits,
        )
        with self.progress.phase(f"{title}: checks"):
            expected = product_types(graph_file)
            verified = toolkit.verified(
                entry, plan, expected, parsed.network, lambda runner: self._parity(runner, graph)
            )
        put_engine(folder, verified, plan)
        return verified

    def _parity(self, runner: TensorRtRunner, graph: Graph) -> Parity:
        """How far the engine in `runner` is from the reference."""
        contract = GraphContract(graph.tower, graph.inputs, graph.outputs[0])
        preprocessing = self.bundle.manifest.preprocessing
        return gate.measure_runner(runner, contract, preprocessing, golden.read(self.bundle)).parity
