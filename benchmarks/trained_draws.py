"""What INT8 graphs of trained checkpoints are calibrated and judged on, and the bundle that is made with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from align_calibration.dataset.calibration_dataset import select_dataset
from align_runtime.images import preprocess
from align_runtime.parity import cosines
from benchmarks import trained_checkpoints as trained
from benchmarks.peers.calibrated import CalibratedFolder
from benchmarks.peers.draws import runner_of
from benchmarks.result_files import ROOT
from benchmarks.trained_captions import captions, held_out_captions
from support.calibration_images import draw_captions, drawn_images

HELD_OUT_IMAGES, HELD_OUT_SEED = 60, 12345
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Material:
    """A checkpoint, and samples of the kind that it was trained on.

    Attributes:
        checkpoint: returns its folder.
        images, captions: draw so many for a seed, to calibrate on.
        held_out_images: draw so many for a seed; of photographs that `images` never uses.
    """

    checkpoint: Callable[[], Path]
    images: Callable[[int, int], Iterable[Image.Image]]
    held_out_images: Callable[[int, int], Iterable[Image.Image]]
    captions: Callable[[int, int], list[str]]


def _of_photographs(name: str) -> Material:
    def calibration_images(count: int, seed: int) -> list[Image.Image]:
        sources = tuple(name for name in trained.photographs() if name not in trained.HELD_OUT)
        return trained.crops(sources, count, seed)

    return Material(
        partial(trained.build, name), calibration_images, partial(trained.crops, trained.HELD_OUT), captions
    )


MATERIALS: Mapping[str, Material] = {name: _of_photographs(name) for name in trained.NAMES} | {
    "align-tiny": Material(lambda: ROOT / "reference" / "align-tiny", drawn_images, drawn_images, draw_captions)
}


@dataclass(frozen=True)
class Draw(CalibratedFolder):
    """The calibration samples of one seed for a checkpoint of `MATERIALS`, and a bundle, in `folder`.

    Attributes:
        samples: images and captions to calibrate on; 0 for the built-in ones.
    """

    checkpoint: str
    seed: int
    samples: int
    folder: Path

    def export(self, precisions: tuple[str, ...], **options: Any) -> None:
        """Draws the samples; writes them, the bundle with `options` of its export, and what the other tools read."""
        shutil.rmtree(self.folder, ignore_errors=True)
        images, texts = self.folder / "images", self.folder / "captions.txt"
        images.mkdir(parents=True)
        for index, image in enumerate(self._material.images(self.samples, self.seed)):
            image.save(images / f"{index:04}.png", compress_level=1)
        texts.write_text("\n".join(self.captions) + "\n", encoding="utf-8")
        own = select_dataset(images, texts, limit=self.samples, seed=0) if self.samples else None
        self.write(self._material.checkpoint(), precisions, own, sorted(images.iterdir()), self.captions, **options)

    @property
    def _material(self) -> Material:
        return MATERIALS[self.checkpoint]

    @property
    def captions(self) -> list[str]:
        return self._material.captions(self.samples, self.seed)

    @cached_property
    def held_out(self) -> Mapping[str, Sequence[Mapping[str, NDArray[Any]]]]:
        """Inputs of both towers, one sample each."""
        images = self._material.held_out_images(HELD_OUT_IMAGES, HELD_OUT_SEED)
        pixels = preprocess(list(images), self.bundle.manifest.preprocessing)
        texts = held_out_captions(self._material.captions, self.captions)
        return {"vision": [{"pixels": image[None]} for image in pixels], "text": self.tokens(texts)}

    def calibration(self, tower: str) -> Sequence[Mapping[str, NDArray[Any]]]:
        """The calibration samples, one each."""
        if tower == "text":
            return self.tokens(self.captions)
        with np.load(self.folder / "vision.npz") as arrays:
            return [{"pixels": image[None]} for image in arrays["pixels"]]

    def tokens(self, texts: Sequence[str]) -> list[Mapping[str, NDArray[Any]]]:
        rows = (self.tokenizer.pad([ids]) for ids in self.tokenizer.encode(texts))
        return [{"input_ids": ids, "attention_mask": mask} for ids, mask in rows]

    def embeds(self, tower: str, file: Path) -> Rows:
        """The embeddings that the graph in `file` computes of the held-out samples."""
        with closing(runner_of(file)) as runner:
            return np.concatenate([runner.run(sample) for sample in self.held_out[tower]]).astype(np.float64)

    def longest(self, tower: str) -> Mapping[str, NDArray[Any]]:
        """The held-out sample on which MACs are counted."""
        return max(self.held_out[tower], key=lambda sample: next(iter(sample.values())).size)


def fidelity(actual: Rows, exact: Rows) -> dict[str, float]:
    """Cosines of the embeddings `actual` with `exact`, both (n, dim): as they are, and with the mean of `exact`
    subtracted from both."""
    mean = exact.mean(axis=0)
    plain, centred = cosines(actual, exact), cosines(actual - mean, exact - mean)
    return {
        "min_cosine": float(plain.min()),
        "mean_cosine": float(plain.mean()),
        "min_centred": float(centred.min()),
        "mean_centred": float(centred.mean()),
    }
