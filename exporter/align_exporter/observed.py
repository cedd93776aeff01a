"""What activation ranges and means of channels are measured on: built-in samples, extremes, and the user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import overload

import numpy as np
from numpy.typing import NDArray

from align_calibration.observe import Batch
from align_calibration.samples.own_samples import OwnSamples
from align_exporter import samples
from align_exporter.checkpoint import Checkpoint
from align_exporter.contract import GraphContract
from align_runtime.golden import Golden
from align_runtime.tokenizer import Tokenizer


@dataclass(frozen=True)
class KeptPictures(Sequence[Batch]):
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
    def __getitem__(self, index: slice) -> KeptPictures: ...
    def __getitem__(self, index: int | slice) -> Batch | KeptPictures:
        if isinstance(index, slice):
            return KeptPictures(self.pixels[index], self.feed)
        return self.feed(self.pixels[index])


@dataclass(frozen=True)
class ObservedSamples:
    """Inputs of both towers. Built-in ones are in memory; the user's `own` are read when their turn comes.

    Attributes:
        answers: the built-in samples.
        own: the user's, all of them usable; None where none were named.
    """

    answers: Golden
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    own: OwnSamples | None

    def for_ranges(self, contract: GraphContract) -> tuple[Iterator[Batch], int]:
        """Batches for the graph of `contract`, and how many they are."""
        if contract.tower == "text":
            texts = samples.text_batches(self.answers, self.checkpoint.facts.vocab_size)
            captions = [] if self.own is None else self.own.caption_batches(self.tokenizer)
            return chain(texts, captions), len(texts) + self._count("captions")
        pixels = samples.pixel_batches(self.answers)
        return self._feeds(contract, chain(pixels, self._own_pixels())), len(pixels) + self._count("pictures")

    def for_means(self, contract: GraphContract) -> Iterator[Batch] | None:
        """Pictures, without the extremes, which are like no picture; None for a graph without feature maps."""
        if contract.tower == "text":
            return None
        return self._feeds(contract, chain(samples.one_by_one(self.answers.pixels), self._own_pixels()))

    def for_scales(self, contract: GraphContract) -> Sequence[Batch]:
        """Pictures that INT8 scales are measured on, in batches of one: the user's own, the built-in ones where there
        are none; nothing for a graph that is quantised while it runs. They are run many times, so all are kept, as
        bytes: a quarter of a MB each in the published sizes."""
        if contract.tower == "text":
            return []
        own = None if self.own is None else self.own.pictures
        pixels = samples.one_by_one(self.answers.pixels) if own is None else self._own_pixels()
        return KeptPictures(list(pixels), lambda batch: next(self._feeds(contract, [batch])))

    def samples_at_once(self, contract: GraphContract) -> Batch:
        """All built-in pictures in one batch."""
        (batch,) = self._feeds(contract, [self.answers.pixels])
        return batch

    def _own_pixels(self) -> Iterable[NDArray[np.uint8]]:
        return [] if self.own is None else self.own.picture_batches(self.checkpoint.preprocessing)

    def _count(self, kind: str) -> int:
        return len(self.own.selections[kind].used) if self.own is not None and kind in self.own.selections else 0

    def _feeds(self, contract: GraphContract, pixels: Iterable[NDArray[np.uint8]]) -> Iterator[Batch]:
        """`pixels` as the vision graph takes them."""
        name = contract.inputs[0].name
        normalize = self.checkpoint.preprocessing.normalize
        return ({name: batch if name == "pixels" else normalize(batch)} for batch in pixels)
