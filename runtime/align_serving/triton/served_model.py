"""A model of the repository, and the inputs that warm it up."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from align_runtime.backends.buckets import BATCHES
from align_runtime.bundle import Bundle
from align_runtime.engine_targets import RTX, TENSORRT
from align_runtime.engines import read_engines
from align_runtime.golden import Golden
from align_runtime.graph_entry import Graph
from align_runtime.image_embedding import IMAGE_BATCH
from align_runtime.text_embedding import TEXT_BATCH
from align_serving.triton.model_config import ModelConfig
from align_serving.triton.options import ServingOptions

CPU_BATCHES = {"vision": IMAGE_BATCH, "text": TEXT_BATCH}
RUNTIMES: Mapping[str | None, str] = {"tensorrt": TENSORRT, "tensorrt-rtx": RTX}  # devices that run engines, and theirs


@dataclass(frozen=True)
class ServedModel:
    """A model in one version.

    Attributes:
        config: without versions: they share it.
        graph: the graph that computes.
        contract: equal ones let a version take the place of another one under running clients.
        write: writes the content of the version's folder, which exists.
        note: what whoever chooses the server's machine must know, a sentence or empty.
    """

    config: ModelConfig
    graph: Graph
    contract: str
    write: Callable[[Path], None]
    note: str = ""


def batches_for(bundle: Bundle, graph: Graph, options: ServingOptions) -> tuple[int, ...]:
    """Preferred batch sizes of the model of `graph`, ascending, the largest being the most that it takes.

    On a CPU that of one run of the runtime, which more rows make no faster. On a GPU the batches that the runtime is
    set up for: those of the engines in the bundle, or the ones that it always has.
    """
    sizes: Sequence[int] = (CPU_BATCHES[graph.tower],)
    if options.on_gpu:
        built = {
            shape[0]
            for entry in read_engines(bundle).entries
            if (entry.tower, entry.variant, entry.runtime) == (graph.tower, graph.variant, RUNTIMES.get(options.device))
            for shapes in entry.profiles
            for shape in shapes.values()
        }
        sizes = sorted(built - {1}) or (BATCHES[1:] if not built else (1,))
    if options.max_batch is None:
        return tuple(sizes)
    return (*(size for size in sizes if size < options.max_batch), options.max_batch)


def warm_up_batches(preferred: Sequence[int]) -> tuple[int, ...]:
    """The batches to warm up with: a single row, and every preferred size."""
    return tuple(sorted({1, *preferred}))


def longest_text(golden: Golden) -> int:
    """The index of the golden text with the most tokens: warmed up with an empty one, a model would be cold."""
    return int(golden.attention_mask.sum(axis=1).argmax())


def as_bytes_tensor(value: bytes) -> bytes:
    """One string as Triton passes it: its length in 4 bytes, little endian, and its bytes."""
    return struct.pack("<I", len(value)) + value
