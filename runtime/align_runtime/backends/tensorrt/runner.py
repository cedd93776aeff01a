"""Batches through a TensorRT engine: cut into buckets, over as many lanes as are free."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_runtime.backends.buckets import Buckets, Piece, check_inputs, row_count
from align_runtime.backends.stages import Stopwatch
from align_runtime.backends.tensorrt.engine import open_engine
from align_runtime.backends.tensorrt.lane import Lane
from align_runtime.backends.tensorrt.pool import LanePool
from align_runtime.engines import EngineEntry, Shapes
from align_runtime.errors import BundleError

# Two, so that one batch crosses the bus and is copied by the host while the other one computes.
LANES = 2


class TensorRtRunner:
    """One engine on the GPU. Many threads may share it: each call takes a lane, or several when it is large."""

    def __init__(self, plan: Path, entry: EngineEntry, lanes: int = LANES) -> None:
        """Takes all the memory that it will need, but for what TensorRT sets up on the first use of a shape.

        Raises:
            BundleError: TensorRT does not take the plan, or it is not what `entry` describes.
            DeviceError: not enough memory.
        """
        self.engine = open_engine(plan, entry)
        self._buckets = _buckets(entry.profiles)
        self._profiles = {_bucket(shapes): index for index, shapes in enumerate(entry.profiles)}
        if set(self._profiles) != set(product(self._buckets.batches, self._buckets.lengths or (None,))):
            raise BundleError(
                f"{plan}: the profiles {list(self._profiles)} leave out a batch or length; build it again: "
                "align-export … --engine"
            )
        self._takes = {name: (self.engine.dtypes[name], _named(shape)) for name, shape in entry.profiles[0].items()}
        self._lanes: list[Lane] = []
        with ExitStack() as opened:
            for _ in range(lanes):
                lane = Lane(self.engine)
                opened.callback(lane.close)
                self._lanes.append(lane)
            opened.pop_all()
        self._pool = LanePool(self._lanes)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        check_inputs(inputs, self._takes)
        rows = row_count(inputs)
        pieces = list(self._buckets.pieces(rows))
        result = np.empty((rows, self.engine.width), dtype=np.float32)
        if not pieces:
            return result
        with self._pool.take(len(pieces)) as lanes:
            on_the_way: dict[Lane, Piece] = {}
            try:
                for index, piece in enumerate(pieces):
                    lane = lanes[index % len(lanes)]
                    if lane in on_the_way:
                        result[on_the_way.pop(lane).rows] = lane.collect()
                    rows_of_piece = {name: values[piece.rows] for name, values in inputs.items()}
                    lane.submit(rows_of_piece, self._profile(piece, inputs))
                    on_the_way[lane] = piece
            finally:
                for lane, piece in on_the_way.items():  # also after an error: a lane is given back idle
                    result[piece.rows] = lane.collect()
        return result

    def run_staged(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[NDArray[np.float32], Mapping[str, float]]:
        """See `StagedRunner`: one piece after the other, over one lane."""
        check_inputs(inputs, self._takes)
        rows, watch = row_count(inputs), Stopwatch()
        result = np.empty((rows, self.engine.width), dtype=np.float32)
        with self._pool.take(1) as (lane,):
            for piece in self._buckets.pieces(rows):
                rows_of_piece = {name: values[piece.rows] for name, values in inputs.items()}
                result[piece.rows] = lane.run_staged(rows_of_piece, self._profile(piece, inputs), watch)
        return result, watch.seconds

    def prepare(self) -> None:
        """Sets up every profile in every lane."""
        with self._pool.take(len(self._lanes), len(self._lanes)) as lanes:
            for lane in lanes:
                for profile in self._profiles.values():
                    lane.prepare(profile)

    def close(self) -> None:
        self._pool.close()

    def _profile(self, piece: Piece, inputs: Mapping[str, NDArray[Any]]) -> int:
        if not self._buckets.lengths:
            return self._profiles[piece.batch, None]
        return self._profiles[piece.batch, self._buckets.length(next(iter(inputs.values())).shape[1])]


def _named(shape: tuple[int, ...]) -> tuple[int | str, ...]:
    """The shape of an input with names for its free dimensions: of texts both, of images the first."""
    return ("batch", "sequence") if len(shape) == 2 else ("batch", *shape[1:])


def _bucket(shapes: Shapes) -> tuple[int, int | None]:
    """Batch and length of a profile; no length for images."""
    shape = next(iter(shapes.values()))
    return shape[0], shape[1] if len(shape) == 2 else None


def _buckets(profiles: tuple[Shapes, ...]) -> Buckets:
    batches, lengths = zip(*(_bucket(shapes) for shapes in profiles), strict=True)
    return Buckets(
        batches=tuple(sorted(set(batches))),
        lengths=tuple(sorted({length for length in lengths if length is not None})),
    )
