"""What activation ranges and means of channels are measured on: built-in samples, extremes, and the user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import overload

import numpy as np
from numpy.typing import NDArray

from align_calibration.dataset.calibration_dataset import CalibrationDataset
from align_calibration.run_instrumented import Batch
from align_exporter import builtin_samples as samples
from align_exporter.checkpoint.loading import Checkpoint
from align_exporter.graph.contract import GraphContract
from align_runtime.errors import ConfigurationError
from align_runtime.golden import Golden
from align_runtime.tokenizer import Tokenizer

HELD_OUT_EVERY = 4  # of the samples
LEAST_HELD_OUT = 8  # say something about an average


@dataclass(frozen=True)
class KeptImages(Sequence[Batch]):
    """Batches that are kept as bytes and made what the graph takes when their turn comes.

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
    def __getitem__(self, index: slice) -> KeptImages: ...
    def __getitem__(self, index: int | slice) -> Batch | KeptImages:
        if isinstance(index, slice):
            return KeptImages(self.pixels[index], self.feed)
        return self.feed(self.pixels[index])


@dataclass(frozen=True)
class CalibrationInputs:
    """Inputs of both towers. Built-in ones are in memory; the user's `own` are read when their turn comes.

    Attributes:
        answers: the built-in samples.
        own: the user's, all of them usable; None where none were named.
        holds_out: whether some are kept out of `for_scales`, to check a target on.
    """

    answers: Golden
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    own: CalibrationDataset | None
    holds_out: bool = False

    def check_held_out(self) -> None:
        """Raises ConfigurationError where fewer than `LEAST_HELD_OUT` of a kind are held out; decodes nothing."""
        images = self.own_count("images") or len(self.answers.pixels)
        counts = {"images": images, "captions": len(self.answers.texts) + self.own_count("captions")}
        for kind, count in counts.items():
            held_out = -(-count // HELD_OUT_EVERY)
            if held_out < LEAST_HELD_OUT:
                raise ConfigurationError(
                    f"{held_out} {kind} are kept out of the calibration, too few to check a target on; name "
                    f"{HELD_OUT_EVERY * (LEAST_HELD_OUT - 1) + 1} or more with --{kind}"
                )

    def for_ranges(self, contract: GraphContract) -> tuple[Iterator[Batch], int]:
        """Batches for the graph of `contract`, and how many they are."""
        if contract.tower == "text":
            texts = samples.text_batches(self.answers, self.checkpoint.facts.vocab_size)
            captions = [] if self.own is None else self.own.caption_batches(self.tokenizer)
            return chain(texts, captions), len(texts) + self.own_count("captions")
        pixels = samples.pixel_batches(self.answers)
        return self._feeds(contract, chain(pixels, self._own_pixels())), len(pixels) + self.own_count("images")

    def for_means(self, contract: GraphContract) -> Iterator[Batch] | None:
        """Images, without the extremes, which are like no image; None for a graph without feature maps."""
        if contract.tower == "text":
            return None
        return self._feeds(contract, chain(samples.one_by_one(self.answers.pixels), self._own_pixels()))

    def for_scales(self, contract: GraphContract) -> Sequence[Batch]:
        """What INT8 scales are measured on, in batches of one: the user's own images, the built-in ones where there
        are none; the built-in captions and the user's own, without padding. They are run many times, so all are kept,
        images as bytes: a quarter of a MB each in the published sizes."""
        if contract.tower == "text":
            return [batch for index, batch in enumerate(self._captions()) if not self._is_held_out(index)]
        pixels = [batch for index, batch in enumerate(self._images()) if not self._is_held_out(index)]
        return KeptImages(pixels, lambda batch: next(self._feeds(contract, [batch])))

    def held_out(self, contract: GraphContract) -> Sequence[Batch]:
        """The rest: what targets are checked on."""
        if contract.tower == "text":
            return self._held_out_captions()
        pixels = self._held_out_images()
        return KeptImages(pixels, lambda batch: next(self._feeds(contract, [batch])))

    def other_embeddings(self, tower: str) -> NDArray[np.float32]:
        """The reference's embeddings of what is held out for the other tower, (samples, dim), unit rows."""
        model, preprocessing = self.checkpoint.model, self.checkpoint.preprocessing
        if tower == "text":
            rows = [samples.embed_pixels(model, preprocessing, pixels) for pixels in self._held_out_images()]
        else:
            rows = [samples.embed_tokens(model, **tokens) for tokens in self._held_out_captions()]
        return np.concatenate(rows)

    def samples_at_once(self, contract: GraphContract) -> Batch:
        """All built-in images in one batch."""
        (batch,) = self._feeds(contract, [self.answers.pixels])
        return batch

    def _images(self) -> Iterable[NDArray[np.uint8]]:
        """The user's own, the built-in ones where there are none."""
        own = None if self.own is None else self.own.images
        return samples.one_by_one(self.answers.pixels) if own is None else self._own_pixels()

    def _captions(self) -> list[dict[str, NDArray[np.int64]]]:
        """The built-in ones and the user's own, by themselves and without padding."""
        own = [] if self.own is None else self.own.caption_batches(self.tokenizer)
        return [*samples.captions_one_by_one(self.answers), *own]

    def _is_held_out(self, index: int) -> bool:
        return self.holds_out and index % HELD_OUT_EVERY == 0

    def _held_out_images(self) -> list[NDArray[np.uint8]]:
        return [batch for index, batch in enumerate(self._images()) if self._is_held_out(index)]

    def _held_out_captions(self) -> list[dict[str, NDArray[np.int64]]]:
        return self._captions()[::HELD_OUT_EVERY]

    def _own_pixels(self) -> Iterable[NDArray[np.uint8]]:
        return [] if self.own is None else self.own.image_batches(self.checkpoint.preprocessing)

    def own_count(self, kind: str) -> int:
        """How many of the user's own there are of ``"images"`` or ``"captions"``."""
        return len(self.own.selections[kind].samples) if self.own is not None and kind in self.own.selections else 0

    def _feeds(self, contract: GraphContract, pixels: Iterable[NDArray[np.uint8]]) -> Iterator[Batch]:
        """`pixels` as the vision graph takes them."""
        name = contract.inputs[0].name
        normalize = self.checkpoint.preprocessing.normalize
        return ({name: batch if name == "pixels" else normalize(batch)} for batch in pixels)
