"""What all tools are measured on: a checkpoint with its held-out set, and calibration samples with their bundle."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_calibration.dataset.calibration_dataset import select_dataset
from align_runtime.backends import Runner, open_runner
from align_runtime.image_embedding import ImageEmbedder
from align_runtime.image_options import DEFAULT_IMAGES
from align_runtime.text_embedding import TextEmbedder
from align_runtime.tower import Tower
from align_runtime.workers import Workers
from benchmarks.peers.calibrated import CalibratedFolder
from support.calibration_images import draw_captions, draw_images
from support.decisions import Embeds, HeldOut
from support.openvino_runner import OpenVinoRunner
from training.evaluate import PER_CLASS, RENDERINGS, embed_images, embed_texts
from training.folder import read_folder


@dataclass(frozen=True)
class Subject:
    """A checkpoint, the held-out set in its image size, and the embeddings of the PyTorch reference."""

    folder: Path
    held_out: HeldOut
    reference: Mapping[str, Embeds]

    @classmethod
    def read(cls, folder: Path, per_class: int = PER_CLASS, renderings: int = RENDERINGS) -> Subject:
        """Reads the checkpoint in `folder` and embeds the held-out set."""
        model, tokenizer, size = read_folder(folder)
        held_out = HeldOut.draw(size, per_class, renderings)
        images = {kind: embed_images(model, pool).numpy() for kind, pool in held_out.pools.items()}
        words = {kind: embed_texts(model, tokenizer, texts).numpy() for kind, texts in held_out.texts.items()}
        return cls(folder, held_out, {"vision": images, "text": words})

    def decide(self, embeds: Mapping[str, Embeds]) -> dict[str, float]:
        """Zero-shot top-1 and recall in per cent, from ``"vision"`` and ``"text"`` embeddings."""
        return self.held_out.decide(embeds["vision"], embeds["text"])


@dataclass(frozen=True)
class Draw(CalibratedFolder):
    """The calibration samples of one seed, and the bundle that is calibrated with them, in `folder`."""

    subject: Subject
    seed: int
    samples: int
    folder: Path

    def export(self) -> None:
        """Draws the samples and writes them, the bundle, and what the other tools read."""
        shutil.rmtree(self.folder, ignore_errors=True)
        images = draw_images(self.folder / "images", self.samples, self.seed)
        own = select_dataset(images, None, limit=self.samples, seed=0)
        captions = draw_captions(self.samples, self.seed)
        self.write(self.subject.folder, ("int8",), own, sorted(images.iterdir()), captions)

    def embeds(self, tower: str, file: Path) -> Embeds:
        """The embeddings that the graph in `file` computes of the held-out set."""
        held_out, preprocessing = self.subject.held_out, self.bundle.manifest.preprocessing
        with closing(runner_of(file)) as runner, closing(Workers(1)) as workers:
            opened = Tower(self.bundle, self.bundle.graph(tower, "fp32", "cpu"), "cpu", runner, None, streams=1)
            if tower == "vision":
                embedder = ImageEmbedder(opened, preprocessing, DEFAULT_IMAGES, workers, workers)
                return held_out.images(embedder.embed_pixels)
            texts = TextEmbedder(opened, self.tokenizer, workers)
            return held_out.words(lambda words: texts.embed_rows(self.tokenizer.encode(words)))

    def one_item(self, tower: str) -> dict[str, NDArray[Any]]:
        """One image, or a text as long as the longest held-out one: the input on which MACs are counted."""
        if tower == "vision":
            return {"pixels": np.zeros((1, *self.bundle.manifest.preprocessing.output_size, 3), dtype=np.uint8)}
        ones = np.ones((1, self.longest_text), dtype=np.int64)
        return {"input_ids": ones, "attention_mask": ones}

    @property
    def longest_text(self) -> int:
        """Tokens of the longest held-out text; the MACs of attention grow with their square."""
        return max(len(ids) for texts in self.subject.held_out.texts.values() for ids in self.tokenizer.encode(texts))


def runner_of(file: Path) -> Runner | OpenVinoRunner:
    """Opens the graph in `file` (.onnx or .xml) on all cores."""
    return OpenVinoRunner(file) if file.suffix == ".xml" else open_runner(file, "cpu", None)
