"""Images to embeddings: decoded in a pool of threads while the graph computes, returned in the order of the input."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_runtime.embedded_rows import EmbeddedRows, OnError, delivered, usable
from align_runtime.image_intake import ImageIntake, Prepared, Taken, is_listed
from align_runtime.image_options import ImageOptions
from align_runtime.images import ImageInput
from align_runtime.preprocessing import ImagePreprocessing
from align_runtime.scheduling import Source, batches
from align_runtime.tower import Tower
from align_runtime.workers import Workers

IMAGE_BATCH = 8
Run = Callable[[Mapping[str, NDArray[Any]]], NDArray[np.float32]]
Parts = Generator[EmbeddedRows, None, None]


def preprocessed(
    images: Iterable[ImageInput], preprocessing: ImagePreprocessing, options: ImageOptions, workers: Workers
) -> Generator[NDArray[np.uint8], None, None]:
    """Yields the pixels, uint8 (height, width, 3), of each of `images`, which are prepared by `workers`.

    Raises:
        InputError: an image cannot be used; `index` is its position.
    """
    source, intake = Source(images), ImageIntake(preprocessing, options)
    taken = intake.taken(source, is_listed(images))
    with closing(workers.ordered(intake.prepare, taken, ahead=2 * workers.count)) as prepared:
        for _, pixels in prepared:
            if isinstance(pixels, Exception):
                raise pixels
            yield pixels
    source.check()


class ImageEmbedder:
    """The vision tower with its preprocessing, which any number of threads may share."""

    def __init__(
        self,
        tower: Tower,
        preprocessing: ImagePreprocessing,
        options: ImageOptions,
        decoders: Workers,
        workers: Workers,
        batch_size: int | None = None,
    ) -> None:
        """`batch_size` is that of calls that give none; None chooses it."""
        self.tower = tower
        self.preprocessing = preprocessing
        self.options = options
        self._decoders = decoders
        self._workers = workers
        self._batch_size = batch_size

    def parts(self, images: Iterable[ImageInput], batch_size: int | None = None, on_error: OnError = "raise") -> Parts:
        """Yields embeddings, a few at a time, in the order of `images`, which is read lazily.

        With streams, each worker thread decodes an image and computes its embedding: batches do not make a
        single-threaded run of an EfficientNet faster. Without streams, or with too few images for all of them, the
        workers decode and the graph runs batches: on a CPU one after another with all threads, on a GPU as many at once
        as it takes, each of the largest size that it was set up for. Only a few images are taken ahead.

        Args:
            batch_size: maximum number of images in one run and in a part; None chooses it.
            on_error: ``"skip"`` yields the error of an image that cannot be used with the rows around it.

        Raises:
            InputError: an image cannot be used; `index` is its position in `images`. What came before is yielded first.
            Exception: an error of `images` itself, likewise.
        """
        source = Source(images)
        intake = ImageIntake(self.preprocessing, self.options)
        taken = intake.taken(source, is_listed(images))
        return delivered(self._parts(intake, taken, batch_size or self._batch_size, on_error), source, on_error)

    def _parts(self, intake: ImageIntake, taken: Iterator[Taken], batch_size: int | None, on_error: OnError) -> Parts:
        streams, per_stream = self.tower.streams, batch_size or 1
        first = list(islice(taken, max(streams * per_stream, 2)))
        taken = chain(first, taken)
        embed = partial(self._embed, on_error=on_error)
        if len(first) == 1:
            yield embed(self.tower.run, [intake.prepare(first[0])])  # there is nothing to overlap with
        elif streams > 1 and streams * per_stream <= len(first):

            def embed_group(group: Sequence[Taken]) -> EmbeddedRows:
                return embed(self.tower.run_stream, [intake.prepare(one) for one in group])

            yield from self._workers.ordered(embed_group, batches(taken, per_stream), ahead=2 * streams)
        else:
            size = self.tower.batch_size(batch_size, IMAGE_BATCH)
            with closing(self._decoders.ordered(intake.prepare, taken, ahead=2 * size)) as prepared:
                yield from self._workers.overlapped(
                    partial(embed, self.tower.run), batches(prepared, size), self.tower.in_flight
                )

    def embed_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings float32 (n, dim) of pixels uint8 (n, height, width, 3), divided among streams or as one batch."""
        streams = self.tower.streams
        if not 1 < streams <= len(pixels):
            return self.tower.run(self._inputs(pixels))

        def run(one: NDArray[np.uint8]) -> NDArray[np.float32]:
            return self.tower.run_stream(self._inputs(one))

        return np.concatenate(list(self._workers.ordered(run, np.split(pixels, len(pixels)), 2 * streams)))

    def _embed(self, run: Run, group: Sequence[Prepared], on_error: OnError) -> EmbeddedRows:
        indices, pixels, errors = usable(group, on_error)
        embeds = run(self._inputs(np.stack(pixels))) if pixels else np.empty((0, self.tower.dim), np.float32)
        return EmbeddedRows(np.array(indices, np.int64), embeds, errors)

    def _inputs(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8] | NDArray[np.float32]]:
        (tensor,) = self.tower.graph.inputs
        return {tensor.name: pixels if tensor.name == "pixels" else self.preprocessing.normalize(pixels)}
