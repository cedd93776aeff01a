"""Images to embeddings: decoded in a pool of threads while the graph computes, returned in the order of the input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from align_runtime.errors import InputError
from align_runtime.images import ImageInput, preprocess
from align_runtime.preprocessing import ImagePreprocessing
from align_runtime.scheduling import batches
from align_runtime.tower import Tower
from align_runtime.workers import Workers

IMAGE_BATCH = 8
Numbered = tuple[int, ImageInput]


def preprocess_numbered(numbered: Numbered, preprocessing: ImagePreprocessing) -> NDArray[np.uint8]:
    """Pixels uint8 (1, height, width, 3) of the second of (index, image).

    Raises:
        InputError: the image cannot be used; `index` is the first.
    """
    index, image = numbered
    try:
        return preprocess([image], preprocessing)
    except InputError as error:
        raise error.shifted(index) from None


class ImageEmbedder:
    """The vision tower with its preprocessing, which any number of threads may share."""

    def __init__(self, tower: Tower, preprocessing: ImagePreprocessing, decoders: Workers, workers: Workers) -> None:
        self.tower = tower
        self.preprocessing = preprocessing
        self._decoders = decoders
        self._workers = workers

    def parts(self, images: Iterable[ImageInput], batch_size: int | None = None) -> Iterator[NDArray[np.float32]]:
        """Yields embeddings float32 (n, dim), a few at a time, in the order of `images`, which is read lazily.

        With streams, each worker thread decodes an image and computes its embedding: batches do not make a
        single-threaded run of an EfficientNet faster. Without streams, or with too few images for all of them, the
        workers decode and the graph runs batches with all threads. Only a few images are decoded ahead.

        Args:
            batch_size: maximum number of images in one run; None chooses it.

        Raises:
            InputError: an image cannot be used; `index` is its position in `images`.
        """
        streams, numbered = self.tower.streams, enumerate(images)
        per_stream = batch_size or 1
        first = list(islice(numbered, max(streams * per_stream, 2)))
        if len(first) == 1:
            yield self._run(self._preprocess(first[0]))  # there is nothing to overlap with
        elif streams > 1 and streams * per_stream <= len(first):
            groups = batches(chain(first, numbered), per_stream)
            yield from self._workers.ordered(self._embed_group, groups, ahead=2 * streams)
        else:
            size = batch_size or IMAGE_BATCH
            pixels = self._decoders.ordered(self._preprocess, chain(first, numbered), ahead=2 * size)
            for batch in batches(pixels, size):
                yield self._run(np.concatenate(batch))

    def embed_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings float32 (n, dim) of pixels uint8 (n, height, width, 3), divided among streams or as one batch."""
        streams = self.tower.streams
        if not 1 < streams <= len(pixels):
            return self._run(pixels)
        return np.concatenate(list(self._workers.ordered(self._run_stream, np.split(pixels, len(pixels)), 2 * streams)))

    def _preprocess(self, numbered: Numbered) -> NDArray[np.uint8]:
        return preprocess_numbered(numbered, self.preprocessing)

    def _embed_group(self, group: Sequence[Numbered]) -> NDArray[np.float32]:
        return self._run_stream(np.concatenate([self._preprocess(numbered) for numbered in group]))

    def _run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.tower.run(self._inputs(pixels))

    def _run_stream(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.tower.run_stream(self._inputs(pixels))

    def _inputs(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8] | NDArray[np.float32]]:
        (tensor,) = self.tower.graph.inputs
        return {tensor.name: pixels if tensor.name == "pixels" else self.preprocessing.normalize(pixels)}
