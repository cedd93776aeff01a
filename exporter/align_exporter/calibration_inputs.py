"""The inputs that activation ranges, channel means and INT8 scales are measured on: built-in samples, extremes, and the
calibration dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import overload

import numpy as np
from numpy.typing import NDArray

from align_calibration.dataset.calibration_dataset import CalibrationDataset
from align_calibration.run_instrumented import Batch
from align_exporter import builtin_samples
from align_exporter.checkpoint.read_checkpoint import Checkpoint
from align_exporter.graph.specs import GraphContract
from align_runtime.errors import ConfigurationError
from align_runtime.golden import Golden
from align_runtime.tokenizer import Tokenizer

HELD_OUT_EVERY = 4  # every fourth sample
MIN_HELD_OUT = 8  # fewer say too little about an average


@dataclass(frozen=True)
class PixelBatches(Sequence[Batch]):
    """Images kept as bytes, which become inputs of the graph only when their turn comes.

    Attributes:
        pixels: uint8 (1, height, width, 3) each.
        feed: makes such an array an input of the graph.
    """

    pixels: Sequence[NDArray[np.uint8]]
    feed: Callable[[NDArray[np.uint8]], Batch]

    def __len__(self) -> int:
        return len(self.pixels)

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> PixelBatches: ...
    def __getitem__(self, index: int | slice) -> Batch | PixelBatches:
        if isinstance(index, slice):
            return PixelBatches(self.pixels[index], self.feed)
        return self.feed(self.pixels[index])


@dataclass(frozen=True)
class CalibrationInputs:
    """Inputs of both towers. Built-in samples are in memory; those of the dataset are read when their turn comes.

    Attributes:
        answers: the built-in samples.
        dataset: the calibration dataset, all of it decodable; None where none was named.
        holds_out: whether every fourth sample is held out of `for_scales`, to check a target on.
    """

    answers: Golden
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    dataset: CalibrationDataset | None
    holds_out: bool = False

    def check_held_out(self) -> None:
        """Raises ConfigurationError if fewer than `MIN_HELD_OUT` images or captions are held out; decodes nothing."""
        images = self.dataset_count("images") or len(self.answers.pixels)
        counts = {"images": images, "captions": len(self.answers.texts) + self.dataset_count("captions")}
        for kind, count in counts.items():
            held_out = -(-count // HELD_OUT_EVERY)
            if held_out < MIN_HELD_OUT:
                raise ConfigurationError(
                    f"{held_out} {kind} are held out of the calibration, too few to check a target on; name "
                    f"{HELD_OUT_EVERY * (MIN_HELD_OUT - 1) + 1} or more with --calibration-{kind}"
                )

    def for_ranges(self, contract: GraphContract, images: bool = True) -> tuple[Iterator[Batch], int]:
        """Batches that activation ranges are measured on, and their number: built-in samples, extremes, the dataset.

        Args:
            images: those of the dataset too.
        """
        if contract.tower == "text":
            texts = builtin_samples.text_batches(self.answers, self.checkpoint.facts.vocab_size)
            captions = [] if self.dataset is None else self.dataset.caption_batches(self.tokenizer)
            return chain(texts, captions), len(texts) + self.dataset_count("captions")
        pixels = builtin_samples.pixel_batches(self.answers)
        if not images:
            return self._feeds(contract, pixels), len(pixels)
        batches = self._feeds(contract, chain(pixels, self._dataset_pixels()))
        return batches, len(pixels) + self.dataset_count("images")

    def for_means(self, contract: GraphContract) -> Iterator[Batch] | None:
        """Images that channel means are measured on, without the extremes, which resemble no image; None for a graph
        without feature maps."""
        if contract.tower == "text":
            return None
        return self._feeds(contract, chain(builtin_samples.one_by_one(self.answers.pixels), self._dataset_pixels()))

    def for_scales(self, contract: GraphContract) -> Sequence[Batch]:
        """Samples that INT8 scales are measured on, in batches of one: the images of the dataset, or the built-in ones
        where it has none; the built-in captions and those of the dataset, without padding. They are run many times, so
        all are kept in memory, images as bytes: 0.25 MB each in the published sizes."""
        if contract.tower == "text":
            return [batch for index, batch in enumerate(self._captions()) if not self._is_held_out(index)]
        pixels = [batch for index, batch in enumerate(self._images()) if not self._is_held_out(index)]
        return PixelBatches(pixels, lambda batch: next(self._feeds(contract, [batch])))

    def held_out(self, contract: GraphContract) -> Sequence[Batch]:
        """The other samples, which a target is checked on."""
        if contract.tower == "text":
            return self._held_out_captions()
        pixels = self._held_out_images()
        return PixelBatches(pixels, lambda batch: next(self._feeds(contract, [batch])))

    def other_embeddings(self, tower: str) -> NDArray[np.float32]:
        """The reference's embeddings of the samples held out for the other tower, (samples, dim), unit rows."""
        model, preprocessing = self.checkpoint.model, self.checkpoint.preprocessing
        if tower == "text":
            rows = [builtin_samples.embed_pixels(model, preprocessing, pixels) for pixels in self._held_out_images()]
        else:
            rows = [builtin_samples.embed_tokens(model, **tokens) for tokens in self._held_out_captions()]
        return np.concatenate(rows)

    def samples_at_once(self, contract: GraphContract) -> Batch:
        """All built-in images in one batch."""
        (batch,) = self._feeds(contract, [self.answers.pixels])
        return batch

    def dataset_count(self, kind: str) -> int:
        """How many ``"images"`` or ``"captions"`` the dataset has."""
        if self.dataset is None or kind not in self.dataset.selections:
            return 0
        return len(self.dataset.selections[kind].samples)

    def _images(self) -> Iterable[NDArray[np.uint8]]:
        """Those of the dataset, or the built-in ones where it has none."""
        if self.dataset is None or self.dataset.images is None:
            return builtin_samples.one_by_one(self.answers.pixels)
        return self._dataset_pixels()

    def _captions(self) -> list[dict[str, NDArray[np.int64]]]:
        """The built-in ones and those of the dataset, in batches of one without padding."""
        captions = [] if self.dataset is None else self.dataset.caption_batches(self.tokenizer)
        return [*builtin_samples.captions_one_by_one(self.answers), *captions]

    def _is_held_out(self, index: int) -> bool:
        return self.holds_out and index % HELD_OUT_EVERY == 0

    def _held_out_images(self) -> list[NDArray[np.uint8]]:
        return [batch for index, batch in enumerate(self._images()) if self._is_held_out(index)]

    def _held_out_captions(self) -> list[dict[str, NDArray[np.int64]]]:
        return self._captions()[::HELD_OUT_EVERY]

    def _dataset_pixels(self) -> Iterable[NDArray[np.uint8]]:
        return [] if self.dataset is None else self.dataset.image_batches(self.checkpoint.preprocessing)

    def _feeds(self, contract: GraphContract, pixels: Iterable[NDArray[np.uint8]]) -> Iterator[Batch]:
        """`pixels` as the vision graph takes them."""
        name = contract.inputs[0].name
        normalize = self.checkpoint.preprocessing.normalize
        return ({name: batch if name == "pixels" else normalize(batch)} for batch in pixels)
