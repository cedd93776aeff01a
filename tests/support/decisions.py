"""Zero-shot classification and retrieval on the held-out set, as in training.evaluate, for any embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray

from align_runtime.parity import cosines
from training.captions import LABEL_TEMPLATE, full_caption, label
from training.evaluate import EVALUATION_SEED, PER_CLASS, RENDERINGS, zero_shot
from training.pools import Pool, held_out_digits, held_out_shapes
from training.presets import ImageSize
from training.scenes import COLOURS, DIGITS, SHAPES

LABELS = {
    "shapes": [label(shape, colour) for colour in COLOURS for shape in SHAPES],
    "digits": [label(digit) for digit in DIGITS],
}
BATCH = 64
Embeds = Mapping[str, NDArray[np.float32]]
Answers = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class HeldOut:
    """The held-out set.

    Attributes:
        pools: images of ``"shapes"`` and of ``"digits"``.
        texts: the labels of both in their template, and ``"captions"``, one for each image of `retrieved`.
        retrieved: rows of all images, shapes first, that recall is measured on: one rendering of each digit, and only
            the first of the scenes with equal captions, which cannot be told apart.
    """

    pools: Mapping[str, Pool]
    texts: Mapping[str, Sequence[str]]
    retrieved: Sequence[int]

    @classmethod
    def draw(cls, size: ImageSize, per_class: int = PER_CLASS, renderings: int = RENDERINGS) -> HeldOut:
        """The images of training.evaluate, at `size`."""
        pools = {
            "shapes": held_out_shapes(EVALUATION_SEED, per_class, size),
            "digits": held_out_digits(EVALUATION_SEED, renderings, size),
        }
        once = len(pools["digits"].scenes) // renderings
        captions = [full_caption(scene) for scene in (*pools["shapes"].scenes, *pools["digits"].scenes[:once])]
        first = {caption: index for index, caption in reversed(list(enumerate(captions)))}
        retrieved = sorted(first.values())
        texts = {kind: [LABEL_TEMPLATE.format(name) for name in names] for kind, names in LABELS.items()}
        return cls(pools, texts | {"captions": [captions[index] for index in retrieved]}, retrieved)

    def images(self, embed: Callable[[NDArray[np.uint8]], NDArray[np.float32]]) -> Embeds:
        """Embeddings of the pools' images, float32 (images, dim), in batches of `BATCH`."""
        return {kind: _in_batches(embed, pool.pixels) for kind, pool in self.pools.items()}

    def words(self, embed: Callable[[Sequence[str]], NDArray[np.float32]]) -> Embeds:
        """Embeddings of the texts, float32 (texts, dim)."""
        return {kind: embed(texts) for kind, texts in self.texts.items()}

    def decide(self, images: Embeds, words: Embeds) -> dict[str, float]:
        """Top-1 accuracy of ``shapes`` and ``digits`` and text-to-image ``recall``@1, in per cent."""
        answers = {kind: self.top1(kind, images[kind], words[kind]) for kind in self.pools}
        everything = np.concatenate([images[kind] for kind in self.pools])
        return answers | {"recall": self.recall(words["captions"], everything[self.retrieved])}

    def truth(self, kind: str) -> NDArray[np.int64]:
        """The label of each image, int64 (images,)."""
        scenes = self.pools[kind].scenes
        names = [label(scene.subject, None if kind == "digits" else scene.colour) for scene in scenes]
        return np.array([LABELS[kind].index(name) for name in names])

    def answers(self, images: Embeds, words: Embeds) -> Answers:
        """The nearest label of each image of ``shapes`` and ``digits``, and for ``recall`` the nearest image of each
        caption, in the order of `retrieved`."""
        found = {kind: (images[kind] @ words[kind].T).argmax(axis=1) for kind in self.pools}
        everything = np.concatenate([images[kind] for kind in self.pools])
        return found | {"recall": (words["captions"] @ everything[self.retrieved].T).argmax(axis=1)}

    def truths(self) -> Answers:
        """The right `answers`."""
        return {kind: self.truth(kind) for kind in self.pools} | {"recall": np.arange(len(self.retrieved))}

    def top1(self, kind: str, images: NDArray[np.float32], words: NDArray[np.float32]) -> float:
        """Share of the images of a kind whose nearest label is the right one, in per cent."""
        embeds, truth = (torch.from_numpy(rows) for rows in (images, self.truth(kind)))
        return 100 * zero_shot(embeds, torch.from_numpy(words), truth, LABELS[kind]).top1

    def recall(self, captions: NDArray[np.float32], images: NDArray[np.float32]) -> float:
        """Share of the captions whose nearest image is the one in the same row, in per cent."""
        return 100 * float(((captions @ images.T).argmax(axis=1) == np.arange(len(images))).mean())


@dataclass(frozen=True)
class PairedDecisions:
    """Decisions of a graph beside those of another on the same samples, which share the luck of the draw.

    Attributes:
        lost, won: how many are right with the other graph alone, and with this one alone.
        same: how many are the same, right or wrong.
        count: of all.
    """

    lost: int
    won: int
    same: int
    count: int

    @classmethod
    def of(cls, found: NDArray[np.int64], other: NDArray[np.int64], truth: NDArray[np.int64]) -> PairedDecisions:
        """The answers `found` beside those of the `other` graph."""
        right, before = found == truth, other == truth
        return cls(int((before & ~right).sum()), int((right & ~before).sum()), int((found == other).sum()), len(truth))

    @property
    def agreement(self) -> float:
        """In per cent."""
        return 100 * self.same / self.count

    @property
    def loss(self) -> float:
        """Of accuracy, in points."""
        return 100 * (self.lost - self.won) / self.count

    @property
    def least_loss(self) -> float:
        """The lower end of the 95 % interval of `loss`, by the normal approximation of McNemar's test."""
        changes = self.lost + self.won - (self.lost - self.won) ** 2 / self.count
        return self.loss - 1.96 * 100 * sqrt(changes) / self.count


def cosine_statistics(embeds: Embeds, reference: Embeds) -> dict[str, float]:
    """Mean, 5th percentile and minimum of the cosines of all rows with those of the reference.

    A row that is all zeros or not finite counts as 0; ``undefined_rows`` is the number of such rows.
    """
    values = np.concatenate(
        [cosines(*(rows[kind].astype(np.float64) for rows in (embeds, reference))) for kind in embeds]
    )
    undefined = ~np.isfinite(values)
    values = np.where(undefined, 0, values)
    return {
        "mean_cosine": float(values.mean()),
        "p5_cosine": float(np.quantile(values, 0.05)),
        "min_cosine": float(values.min()),
        "undefined_rows": int(undefined.sum()),
    }


def _in_batches(
    embed: Callable[[NDArray[np.uint8]], NDArray[np.float32]], pixels: NDArray[np.uint8]
) -> NDArray[np.float32]:
    return np.concatenate([embed(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)])
