"""What engines are asked for, and the shapes that they are built for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

from align_runtime.backends.buckets import BATCHES, default_lengths
from align_runtime.engines import EngineOptions, Shapes
from align_runtime.errors import ConfigurationError
from align_runtime.graph_entry import Graph


@dataclass(frozen=True)
class EngineRequest:
    """Engines to build.

    Attributes:
        variants: of the bundle, all that a GPU runs when empty.
        batches: an optimisation profile for each.
        lengths: of texts, a profile for each and every batch; when empty, powers of two up to the model's longest.
        options: how to build.
    """

    variants: tuple[str, ...] = ()
    batches: tuple[int, ...] = BATCHES
    lengths: tuple[int, ...] = ()
    options: EngineOptions = field(default_factory=EngineOptions)


def profiles_of(graph: Graph, request: EngineRequest, longest: int) -> tuple[Shapes, ...]:
    """Shapes of the inputs of `graph` in every profile; texts have at most `longest` tokens.

    A profile is for one shape alone: the runtime fills inputs up to it and replays one recorded CUDA graph, and
    TensorRT chooses kernels for exactly that shape.

    Raises:
        ConfigurationError: lengths that do not reach `longest`, or go beyond it.
    """
    lengths = request.lengths or default_lengths(longest)
    if graph.tower == "text" and lengths[-1] != longest:
        raise ConfigurationError(
            f"--profile seq ends with {lengths[-1]}, but this model's longest text has {longest} tokens; let it end "
            f"with seq=…,{longest}"
        )
    return tuple(_shapes(graph, request.batches, lengths if graph.tower == "text" else (0,)))


def _shapes(graph: Graph, batches: tuple[int, ...], lengths: tuple[int, ...]) -> Iterator[Shapes]:
    for batch, length in product(batches, lengths):
        sizes = {"batch": batch, "sequence": length}
        yield {
            tensor.name: tuple(sizes[size] if isinstance(size, str) else size for size in tensor.shape)
            for tensor in graph.inputs
        }
