"""Which engines to build and for which shapes, and which exist already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, product
from typing import Any

from align_runtime.backends.buckets import BATCHES, default_lengths
from align_runtime.bundle import Bundle
from align_runtime.console import table
from align_runtime.engine_targets import TENSORRT, Target
from align_runtime.engines import EngineEntry, EngineOptions, Shapes, engines_of, read_plan
from align_runtime.errors import BundleError, ConfigurationError
from align_runtime.graph_entry import Graph
from align_runtime.precision import describe


@dataclass(frozen=True)
class EngineRequest:
    """Engines to build.

    Attributes:
        variants: of the bundle; empty for all that TensorRT runs.
        batches: batch sizes, ascending; a profile for each. With ``options.ranges``, the smallest, the most frequent
            and the largest, of one profile.
        lengths: tokens of a text, ascending, a profile for each of them and every batch size, or the three of a range;
            empty for powers of two up to the longest text of the model.
        options: how to build.
        runtime: what builds and runs them, of `align_runtime.engine_targets.TITLES`.
        capabilities: the compute capabilities that TensorRT for RTX builds for; empty for another runtime.
    """

    variants: tuple[str, ...] = ()
    batches: tuple[int, ...] = BATCHES
    lengths: tuple[int, ...] = ()
    options: EngineOptions = field(default_factory=EngineOptions)
    runtime: str = TENSORRT
    capabilities: tuple[str, ...] = ()

    def lengths_up_to(self, longest: int) -> tuple[int, ...]:
        """Returns the lengths to build for; `longest` is the number of tokens of the longest text of the model.

        Raises:
            ConfigurationError: the last of the requested lengths is not `longest`.
        """
        if not self.lengths:
            lengths = default_lengths(longest)
            return (lengths[0], lengths[(len(lengths) - 1) // 2], longest) if self.options.ranges else lengths
        if self.lengths[-1] != longest:
            separator = ":" if self.options.ranges else ","
            raise ConfigurationError(
                f"--engine-profile seq ends with {self.lengths[-1]}, but the longest text of this model has {longest} "
                f"tokens; end it with seq=…{separator}{longest}"
            )
        return self.lengths


@dataclass(frozen=True)
class EngineOutcome:
    """An engine of the bundle, and why it was built: None if it was up to date."""

    entry: EngineEntry
    reason: str | None


def profiles_of(graph: Graph, request: EngineRequest, longest: int) -> tuple[Shapes, ...]:
    """Returns the input shapes of `graph` in every profile, or the three of the range of one.

    A profile of TensorRT is for one shape alone: the runtime pads inputs to it and replays a CUDA graph recorded for
    it, and TensorRT chooses kernels for exactly that shape. TensorRT for RTX compiles kernels for a shape where it
    runs, so that one profile serves a range, and each further profile repeats all kernels in the engine.

    Args:
        longest: see `EngineRequest.lengths_up_to`, as for what is raised.
    """
    lengths = request.lengths_up_to(longest) if graph.tower == "text" else (0,)
    if request.options.ranges:
        return tuple(_shapes(graph, zip(request.batches, cycle(lengths), strict=False)))
    return tuple(_shapes(graph, product(request.batches, lengths)))


def _shapes(graph: Graph, pairs: Iterable[tuple[int, int]]) -> Iterator[Shapes]:
    for batch, length in pairs:
        sizes = {"batch": batch, "sequence": length}
        yield {
            tensor.name: tuple(sizes[size] if isinstance(size, str) else size for size in tensor.shape)
            for tensor in graph.inputs
        }


def engines_table(outcomes: Sequence[EngineOutcome]) -> list[str]:
    """Returns a table with one line per engine."""
    rows = [
        [
            outcome.entry.file,
            f"{outcome.entry.bytes / 1e6:.1f} MB",
            describe(outcome.entry.products),
            *_parity_cells(outcome.entry),
            "up to date" if outcome.reason is None else f"built in {outcome.entry.seconds:.0f} s: {outcome.reason}",
        ]
        for outcome in outcomes
    ]
    return table(["engine", "size", "layers in", "max abs", "min cosine", ""], rows, right=(1, 3, 4))


def _parity_cells(entry: EngineEntry) -> list[str]:
    if entry.parity is None:
        return ["not measured", "no GPU"]
    return [f"{entry.parity.max_abs:.2e}", f"{entry.parity.min_cosine:.7f}"]


def engines_json(outcomes: Sequence[EngineOutcome]) -> list[dict[str, Any]]:
    """Returns the description of each engine, with ``built`` and the ``reason`` why."""
    return [
        outcome.entry.to_json() | {"built": outcome.reason is not None, "reason": outcome.reason}
        for outcome in outcomes
    ]


def engine_staleness(
    bundle: Bundle,
    wanted: tuple[str, str],
    source: dict[str, str],
    machine: Target,
    options: EngineOptions,
    profiles: tuple[Shapes, ...],
) -> tuple[EngineEntry | None, str]:
    """Returns the engine that is up to date, or None and the reason why there is none.

    Args:
        wanted: tower and variant.
        source: sha256 of the graph's files, by name.
        machine: what the engine would be built on or for; `options` and `profiles`: how.
    """
    key = (*wanted, machine.runtime)
    built = [entry for entry in engines_of(bundle) if (entry.tower, entry.variant, entry.runtime) == key]
    nearest: list[str] | None = None
    for entry in built:
        changes = list(_changes(entry, source, machine, options, profiles))
        if not changes:
            try:
                read_plan(bundle, entry)
            except BundleError as error:
                return None, str(error)
            return entry, ""
        if nearest is None or len(changes) < len(nearest):
            nearest = changes
    return None, "no engine yet" if nearest is None else f"changed: {', '.join(nearest)}"


def _changes(
    entry: EngineEntry, source: dict[str, str], machine: Target, options: EngineOptions, profiles: tuple[Shapes, ...]
) -> Iterator[str]:
    if entry.source != source:
        yield "graph"
    if [dict(shapes) for shapes in entry.profiles] != [dict(shapes) for shapes in profiles]:
        yield "profiles"
    if entry.options != options:
        yield "options"
    for fact, now in machine.facts.items():
        if entry.machine.facts[fact] != now:
            yield f"{fact} ({entry.machine.facts[fact]} → {now})"
