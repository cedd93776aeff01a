"""Which engines to build and for which shapes, and which exist already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from align_runtime.backends.buckets import BATCHES, default_lengths
from align_runtime.bundle import Bundle
from align_runtime.console import table
from align_runtime.engines import EngineEntry, EngineOptions, Machine, Shapes, engines_of, read_plan
from align_runtime.errors import BundleError, ConfigurationError
from align_runtime.graph_entry import Graph
from align_runtime.precision import describe


@dataclass(frozen=True)
class EngineRequest:
    """Engines to build.

    Attributes:
        variants: of the bundle; empty for all that TensorRT runs.
        batches: batch sizes, ascending; a profile for each.
        lengths: tokens of a text, ascending, a profile for each of them and every batch size; empty for powers of two
            up to the longest text of the model.
        options: how to build.
    """

    variants: tuple[str, ...] = ()
    batches: tuple[int, ...] = BATCHES
    lengths: tuple[int, ...] = ()
    options: EngineOptions = field(default_factory=EngineOptions)

    def lengths_up_to(self, longest: int) -> tuple[int, ...]:
        """Returns the lengths to build for; `longest` is the number of tokens of the longest text of the model.

        Raises:
            ConfigurationError: the last of the requested lengths is not `longest`.
        """
        lengths = self.lengths or default_lengths(longest)
        if lengths[-1] != longest:
            raise ConfigurationError(
                f"--engine-profile seq ends with {lengths[-1]}, but the longest text of this model has {longest} "
                f"tokens; end it with seq=…,{longest}"
            )
        return lengths


@dataclass(frozen=True)
class EngineOutcome:
    """An engine of the bundle, and why it was built: None if it was up to date."""

    entry: EngineEntry
    reason: str | None


def profiles_of(graph: Graph, request: EngineRequest, longest: int) -> tuple[Shapes, ...]:
    """Returns the input shapes of `graph` in every profile.

    A profile is for one shape alone: the runtime pads inputs to it and replays a CUDA graph recorded for it, and
    TensorRT chooses kernels for exactly that shape.

    Args:
        longest: see `EngineRequest.lengths_up_to`, as for what is raised.
    """
    lengths = request.lengths_up_to(longest) if graph.tower == "text" else (0,)
    return tuple(_shapes(graph, request.batches, lengths))


def _shapes(graph: Graph, batches: tuple[int, ...], lengths: tuple[int, ...]) -> Iterator[Shapes]:
    for batch, length in product(batches, lengths):
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
            f"{outcome.entry.parity.max_abs:.2e}",
            f"{outcome.entry.parity.min_cosine:.7f}",
            "up to date" if outcome.reason is None else f"built in {outcome.entry.seconds:.0f} s: {outcome.reason}",
        ]
        for outcome in outcomes
    ]
    return table(["engine", "size", "layers in", "max abs", "min cosine", ""], rows, right=(1, 3, 4))


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
    machine: Machine,
    options: EngineOptions,
    profiles: tuple[Shapes, ...],
) -> tuple[EngineEntry | None, str]:
    """Returns the engine that is up to date, or None and the reason why there is none.

    Args:
        wanted: tower and variant.
        source: sha256 of the graph's files, by name.
        machine: on which the engine would be built; `options` and `profiles`: how.
    """
    built = [entry for entry in engines_of(bundle) if (entry.tower, entry.variant) == wanted]
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
    entry: EngineEntry, source: dict[str, str], machine: Machine, options: EngineOptions, profiles: tuple[Shapes, ...]
) -> Iterator[str]:
    if entry.source != source:
        yield "graph"
    if [dict(shapes) for shapes in entry.profiles] != [dict(shapes) for shapes in profiles]:
        yield "profiles"
    if entry.options != options:
        yield "options"
    if (entry.machine.gpu, entry.machine.compute_capability) != (machine.gpu, machine.compute_capability):
        yield f"GPU ({entry.machine.gpu} → {machine.gpu})"
    if entry.machine.tensorrt != machine.tensorrt:
        yield f"TensorRT ({entry.machine.tensorrt} → {machine.tensorrt})"
