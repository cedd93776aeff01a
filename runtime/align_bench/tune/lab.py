"""The models of a search: a tower opened with the settings of a candidate, its accuracy, and its timed run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_bench.tune.candidates import LATENCY, inputs_of_run
from align_bench.tune.inputs import TowerInputs
from align_runtime.bundle import Bundle
from align_runtime.golden import Golden
from align_runtime.load_options import LoadOptions
from align_runtime.loading import open_parts
from align_runtime.model import Model
from align_runtime.parity import Parity, compare
from align_runtime.processors import available_cores
from align_runtime.tower_settings import TowerSettings

SINGLE_INPUTS = 4  # of a run for latency, one after another


class LoadedTower:
    """A tower in memory; see `align_bench.tune.search.Loaded`."""

    def __init__(self, model: Model, lab: Lab, parity: Parity, items: Sequence[Any]) -> None:
        self.cosine, self.worst = parity.min_cosine, parity.worst["min_cosine"]
        self.items = len(items)
        self._calls = [[item] for item in items] if lab.target == LATENCY else [list(items)]
        self._model, self._lab = model, lab

    def run(self, batch_size: int | None) -> None:
        """Embeds the inputs: one by one for latency, otherwise in one call."""
        for inputs in self._calls:
            self._lab.embed(self._model, inputs, batch_size)


class Lab:
    """Opens the candidates of one tower and target. The accuracy is computed once for a device and precision."""

    def __init__(self, bundle: Bundle, tower: str, target: str, inputs: TowerInputs, golden: Golden) -> None:
        """Raises what `align_runtime.load` raises: with inputs of the caller's own, FP32 computes them once."""
        self.target = target
        self._bundle, self._tower, self._inputs = bundle, tower, inputs
        self._parities: dict[tuple[str, str], Parity] = {}
        vision = tower == "vision"
        self._golden: Sequence[Any] = golden.images if vision else golden.texts
        self._expected = golden.image_embeds if vision else golden.text_embeds
        self._labels = [image.name for image in golden.images] if vision else list(golden.texts)
        if inputs.own:
            with self._model(TowerSettings()) as model:
                self._expected = np.concatenate([self._expected, self.embed(model, inputs.own)])
            self._labels += [f"own input {index}" for index in range(len(inputs.own))]

    @contextmanager
    def open(self, settings: TowerSettings) -> Iterator[LoadedTower]:
        """The tower with `settings`; their batch size does not matter here.

        Raises:
            BackendUnavailableError, DeviceError: as `align_runtime.load`.
        """
        wanted = SINGLE_INPUTS if self.target == LATENCY else 0
        count = wanted or inputs_of_run(self._tower, self.target, settings.device, available_cores())
        items = list(islice(cycle(self._inputs.timed), count))
        with self._model(settings) as model:
            yield LoadedTower(model, self, self._parity(model, settings), items)

    def embed(self, model: Model, inputs: Sequence[Any], batch_size: int | None = None) -> NDArray[np.float32]:
        """Embeddings float32 (n, dim), by the call of a user."""
        if self._tower == "vision":
            return model.embed_images(inputs, batch_size=batch_size)
        return model.embed_texts(inputs, batch_size=batch_size)

    def _parity(self, model: Model, settings: TowerSettings) -> Parity:
        key = settings.device, settings.precision
        if key not in self._parities:
            actual = self.embed(model, [*self._golden, *self._inputs.own])
            self._parities[key] = compare(actual, self._expected, self._labels)
        return self._parities[key]

    def _model(self, settings: TowerSettings) -> Model:
        options = LoadOptions(
            precision=settings.precision,
            device=settings.device,
            threads=settings.threads,
            streams=settings.streams,
            towers=(self._tower,),
        )
        return Model(open_parts(self._bundle.folder, options))


@contextmanager
def said_once() -> Iterator[None]:
    """Warnings of `align_runtime.load` are logged once, and not for each candidate."""
    logger, known = logging.getLogger("align_runtime.loading"), set[str]()

    def is_new(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        new = message not in known
        known.add(message)
        return new

    logger.addFilter(is_new)
    try:
        yield
    finally:
        logger.removeFilter(is_new)
