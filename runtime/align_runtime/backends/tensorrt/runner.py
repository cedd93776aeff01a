"""Runs batches through a TensorRT engine: split into buckets, over all lanes that are free."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_runtime.backends.buckets import Buckets, Piece, check_inputs, row_count
from align_runtime.backends.runner import Stopwatch
from align_runtime.backends.tensorrt import libraries
from align_runtime.backends.tensorrt.cuda_runtime import on_gpu
from align_runtime.backends.tensorrt.engine import Engine, open_engine, this_machine
from align_runtime.backends.tensorrt.lane import Lane, LanePool
from align_runtime.bundle import Bundle
from align_runtime.engine_choice import choose_engine
from align_runtime.engine_targets import BUILD, TENSORRT
from align_runtime.engines import EngineEntry, Shapes, read_plan
from align_runtime.errors import BundleError
from align_runtime.graph_entry import Graph

# Two, so that copies of one batch overlap with the computation of another.
LANES = 2


def open_graph(bundle: Bundle, graph: Graph, gpu: int, _check_hashes: bool) -> TensorRtRunner:
    """Loads the engine of `graph` that fits the GPU with the index `gpu`; see `align_runtime.backends.open_graph`.

    The engine's sha256 is always compared: TensorRT trusts the bytes that it reads.
    """
    entry = choose_engine(bundle, graph, this_machine(gpu), TENSORRT)
    return TensorRtRunner(read_plan(bundle, entry), entry, gpu)


class TensorRtRunner:
    """One engine on a GPU, which any number of threads may share.

    Each call takes a lane, or several for a large input. The current GPU is that of the calling thread, so every call
    sets it.
    """

    def __init__(self, plan: bytes, entry: EngineEntry, gpu: int = 0, lanes: int = LANES) -> None:
        """Loads the engine in `plan` and allocates its memory, except for what TensorRT allocates for each new shape.

        Args:
            plan: the content of the file that `entry` describes.
            gpu: index of the GPU.

        Raises:
            BundleError: TensorRT cannot load the plan, or it does not match `entry`.
            DeviceError: there is not enough memory.
        """
        self._gpu = gpu
        with on_gpu(gpu):
            self.engine = self._open(plan, entry)
        profiles = self.engine.profiles
        self._buckets = _buckets(profiles)
        self.batches, self.in_flight = self._buckets.batches, lanes
        self._profiles = {_bucket(shapes): index for index, shapes in enumerate(profiles)}
        if set(self._profiles) != set(product(self._buckets.batches, self._buckets.lengths or (None,))):
            raise BundleError(
                f"{entry.file}: its profiles {list(self._profiles)} do not cover every batch size with every length; "
                f"{BUILD[entry.runtime]}"
            )
        self._takes = {name: (self.engine.dtypes[name], _named(shape)) for name, shape in profiles[0].items()}
        self._lanes: list[Lane] = []
        with on_gpu(gpu), ExitStack() as opened:
            for _ in range(lanes):
                lane = self._new_lane()
                opened.callback(lane.close)
                self._lanes.append(lane)
            opened.pop_all()
        self._pool = LanePool(self._lanes)

    def _open(self, plan: bytes, entry: EngineEntry) -> Engine:
        return open_engine(plan, entry, libraries.trt)

    def _new_lane(self) -> Lane:
        return Lane(self.engine)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        check_inputs(inputs, self._takes)
        rows = row_count(inputs)
        pieces = list(self._buckets.pieces(rows))
        result = np.empty((rows, self.engine.width), dtype=np.float32)
        if not pieces:
            return result
        with on_gpu(self._gpu), self._pool.take(len(pieces)) as lanes:
            running: dict[Lane, Piece] = {}
            for index, piece in enumerate(pieces):
                lane = lanes[index % len(lanes)]
                if lane in running:
                    result[running[lane].rows] = lane.collect()
                rows_of_piece = {name: values[piece.rows] for name, values in inputs.items()}
                lane.submit(rows_of_piece, self._profile(piece, inputs))
                running[lane] = piece
            for lane, piece in running.items():
                result[piece.rows] = lane.collect()
        return result

    def run_staged(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[NDArray[np.float32], Mapping[str, float]]:
        """See `StagedRunner`. The pieces run one after another on one lane."""
        check_inputs(inputs, self._takes)
        rows, watch = row_count(inputs), Stopwatch()
        result = np.empty((rows, self.engine.width), dtype=np.float32)
        with on_gpu(self._gpu), self._pool.take(1) as (lane,):
            for piece in self._buckets.pieces(rows):
                rows_of_piece = {name: values[piece.rows] for name, values in inputs.items()}
                result[piece.rows] = lane.run_staged(rows_of_piece, self._profile(piece, inputs), watch)
        return result, watch.seconds

    def prepare(self) -> None:
        """Sets up every profile in every lane."""
        with on_gpu(self._gpu), self._pool.take(len(self._lanes), len(self._lanes)) as lanes:
            for lane in lanes:
                for profile in self._profiles.values():
                    lane.prepare(profile)

    def close(self) -> None:
        with on_gpu(self._gpu):
            self._pool.close()

    def _profile(self, piece: Piece, inputs: Mapping[str, NDArray[Any]]) -> int:
        if not self._buckets.lengths:
            return self._profiles[piece.batch, None]
        return self._profiles[piece.batch, self._buckets.length(next(iter(inputs.values())).shape[1])]


def _named(shape: tuple[int, ...]) -> tuple[int | str, ...]:
    """The shape of an input with names for its free dimensions: both of a text's, the first of an image's."""
    return ("batch", "sequence") if len(shape) == 2 else ("batch", *shape[1:])


def _bucket(shapes: Shapes) -> tuple[int, int | None]:
    """Batch size and length of a profile; the length is None for images."""
    shape = next(iter(shapes.values()))
    return shape[0], shape[1] if len(shape) == 2 else None


def _buckets(profiles: tuple[Shapes, ...]) -> Buckets:
    batches, lengths = zip(*(_bucket(shapes) for shapes in profiles), strict=True)
    return Buckets(
        batches=tuple(sorted(set(batches))),
        lengths=tuple(sorted({length for length in lengths if length is not None})),
    )
