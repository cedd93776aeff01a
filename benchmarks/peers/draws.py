"""What all tools are measured on: a checkpoint with its held-out set, and calibration samples with their bundle."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from align_calibration.dataset.calibration_dataset import select_dataset
from align_exporter.export_options import ExportOptions
from align_exporter.freshness import provenance
from align_exporter.pipeline import build_bundle
from align_reference.source import resolve
from align_runtime.backends import Runner, open_runner
from align_runtime.bundle import Bundle
from align_runtime.image_embedding import ImageEmbedder
from align_runtime.image_options import DEFAULT_IMAGES
from align_runtime.images import preprocess
from align_runtime.progress import Progress
from align_runtime.text_embedding import TextEmbedder
from align_runtime.tokenizer import Tokenizer
from align_runtime.tower import Tower
from align_runtime.workers import Workers
from support.calibration_images import draw_captions, draw_images
from support.decisions import Embeds, HeldOut
from support.openvino_runner import OpenVinoRunner
from training.evaluate import PER_CLASS, RENDERINGS, embed_images, embed_texts
from training.folder import read_folder

TOWERS = ("vision", "text")


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
class Draw:
    """The calibration samples of one seed, and the bundle that is calibrated with them, in `folder`."""

    subject: Subject
    seed: int
    samples: int
    folder: Path

    def export(self) -> None:
        """Draws the samples, builds the bundle, and writes what the tools read: samples, FP32 graphs with weights."""
        shutil.rmtree(self.folder, ignore_errors=True)
        images = draw_images(self.folder / "images", self.samples, self.seed)
        own = select_dataset(images, None, limit=self.samples, seed=0)
        # Fidelity is what is measured here, so the parity gate accepts every finite result.
        options = ExportOptions(
            precisions=("int8",), dataset=own, parity_max_abs={"int8": 2.0}, parity_min_cosine={"int8": -1.0}
        )
        source = resolve(str(self.subject.folder))
        build_bundle(source, provenance(source, options), self.bundle_folder, options, Progress(quiet=True))
        pixels = preprocess(sorted(images.iterdir()), self.bundle.manifest.preprocessing)
        np.savez(self.folder / "vision.npz", pixels=pixels)
        ids, mask = self.tokenizer.pad(self.tokenizer.encode(draw_captions(self.samples, self.seed)))
        np.savez(self.folder / "text.npz", input_ids=ids, attention_mask=mask)
        for tower in TOWERS:
            onnx.save(onnx.load(self.graph(tower, "fp32")), self.folder / f"{tower}.onnx")

    @property
    def bundle_folder(self) -> Path:
        return self.folder / "bundle"

    @cached_property
    def bundle(self) -> Bundle:
        return Bundle.open(self.bundle_folder)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        facts = self.bundle.manifest.model
        return Tokenizer.from_file(self.bundle_folder / "tokenizer.json", facts.max_length, facts.pad_token_id)

    def graph(self, tower: str, variant: str, device: str = "cpu") -> Path:
        return self.bundle.path(self.bundle.graph(tower, variant, device).file)

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
