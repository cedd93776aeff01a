"""Images to embeddings: decoded in a pool of threads while the graph computes, handed out in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from align_runtime.errors import InputError
from align_runtime.images import ImageInput, preprocess
from align_runtime.preprocessing import ImagePreprocessing
from align_runtime.scheduling import Workers, batches
from align_runtime.tower import Tower

IMAGE_BATCH = 8
Numbered = tuple[int, ImageInput]


class ImageEmbedder:
    """The vision tower with its preprocessing. Many threads may share one."""

    def __init__(self, tower: Tower, preprocessing: ImagePreprocessing, workers: Workers) -> None:
        self.tower = tower
        self.preprocessing = preprocessing
        self._workers = workers

    def parts(self, images: Iterable[ImageInput]) -> Iterator[NDArray[np.float32]]:
        """Embeddings float32 (n, dim) of some images after the other, in the order of `images`, read as needed.

        With streams, every thread decodes a image and computes its embedding: batches make a single-threaded run of
        an EfficientNet no faster. For fewer images than streams, and without streams, the threads decode and the
        graph runs on batches with all its threads. A few images are read and decoded ahead, never all.

        Raises:
            InputError: a image that cannot be read, with its place in the input.
        """
        streams, numbered = self.tower.streams, enumerate(images)
        first = list(islice(numbered, max(streams, 2)))
        if len(first) == 1:
            yield self._run(self._prepare_one(first[0]))  # there is nothing to do meanwhile
        elif 1 < streams <= len(first):
            yield from self._workers.ordered(self._embed_one, chain(first, numbered), ahead=2 * streams)
        else:
            pixels = self._workers.ordered(self._prepare_one, chain(first, numbered), ahead=2 * IMAGE_BATCH)
            for batch in batches(pixels, IMAGE_BATCH):
                yield self._run(np.concatenate(batch))

    def embed_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings float32 (n, dim) of pixels uint8 (n, height, width, 3), divided among streams or as one batch."""
        streams = self.tower.streams
        if not 1 < streams <= len(pixels):
            return self._run(pixels)
        return np.concatenate(list(self._workers.ordered(self._run_stream, np.split(pixels, len(pixels)), 2 * streams)))

    def _embed_one(self, numbered: Numbered) -> NDArray[np.float32]:
        return self._run_stream(self._prepare_one(numbered))

    def _run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.tower.run(self._inputs(pixels))

    def _run_stream(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.tower.run_stream(self._inputs(pixels))

    def _prepare_one(self, numbered: Numbered) -> NDArray[np.uint8]:
        """Pixels uint8 (1, height, width, 3)."""
        index, image = numbered
        try:
            return preprocess([image], self.preprocessing)
        except InputError as error:
            raise error.shifted(index) from None

    def _inputs(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8] | NDArray[np.float32]]:
        (tensor,) = self.tower.graph.inputs
        return {tensor.name: pixels if tensor.name == "pixels" else self.preprocessing.normalize(pixels)}
