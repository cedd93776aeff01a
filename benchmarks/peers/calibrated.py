"""A folder with calibration samples, the bundle that is calibrated on them, and what other tools read of both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from align_calibration.dataset.calibration_dataset import CalibrationDataset
from align_exporter.export_options import ExportOptions
from align_exporter.freshness import provenance
from align_exporter.pipeline import build_bundle
from align_reference.source import resolve
from align_runtime.bundle import Bundle
from align_runtime.images import preprocess
from align_runtime.progress import Progress
from align_runtime.tokenizer import Tokenizer

TOWERS = ("vision", "text")


class CalibratedFolder:
    """What `write` makes in `folder`, which a subclass has."""

    folder: Path

    def write(
        self,
        checkpoint: Path,
        precisions: tuple[str, ...],
        dataset: CalibrationDataset | None,
        images: Sequence[Path],
        captions: Sequence[str],
        **options: Any,
    ) -> None:
        """Writes the bundle of `checkpoint`, and for the other tools the samples and FP32 graphs with weights inside.

        Args:
            dataset: what the bundle is calibrated on; None for the built-in samples.
            images, captions: for the other tools; without images nothing is written of either.
            options: more of `ExportOptions`.
        """
        # Fidelity is what is measured here, so the parity gate accepts every finite result.
        anything = {"parity_max_abs": {"int8": 2.0}, "parity_min_cosine": {"int8": -1.0}}
        chosen = ExportOptions(precisions=precisions, dataset=dataset, **anything, **options)
        source = resolve(str(checkpoint))
        build_bundle(source, provenance(source, chosen), self.folder / "bundle", chosen, Progress(quiet=True))
        if images:
            np.savez(self.folder / "vision.npz", pixels=preprocess(images, self.bundle.manifest.preprocessing))
            ids, mask = self.tokenizer.pad(self.tokenizer.encode(captions))
            np.savez(self.folder / "text.npz", input_ids=ids, attention_mask=mask)
        for tower in TOWERS:
            onnx.save(onnx.load(self.graph(tower, "fp32")), self.folder / f"{tower}.onnx")

    @cached_property
    def bundle(self) -> Bundle:
        return Bundle.open(self.folder / "bundle")

    @cached_property
    def tokenizer(self) -> Tokenizer:
        facts = self.bundle.manifest.model
        return Tokenizer.from_file(self.bundle.path("tokenizer.json"), facts.max_length, facts.pad_token_id)

    def graph(self, tower: str, variant: str, device: str = "cpu") -> Path:
        return self.bundle.path(self.bundle.graph(tower, variant, device).file)
