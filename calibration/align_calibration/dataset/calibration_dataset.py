"""The samples that a user names: images, captions or both, chosen, checked, recorded, and made into batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_calibration.dataset.caption_file import open_captions
from align_calibration.dataset.image_source import open_images
from align_calibration.dataset.selection import Selection, select
from align_runtime.console import Progress
from align_runtime.images import preprocess
from align_runtime.preprocessing import ImagePreprocessing
from align_runtime.tokenizer import Tokenizer

SAMPLES_NAME = "samples.json"
ENOUGH = 128  # fewer say little about how large values get


@dataclass(frozen=True)
class CalibrationDataset:
    """What was chosen. `limit` is how many of each kind at most, `seed` that of the draw."""

    images: Selection | None
    captions: Selection | None
    limit: int
    seed: int

    @property
    def selections(self) -> dict[str, Selection]:
        """The kinds that there are: ``"images"``, ``"captions"``."""
        kinds = {"images": self.images, "captions": self.captions}
        return {kind: selection for kind, selection in kinds.items() if selection is not None}

    def to_json(self) -> dict[str, Any]:
        """What a bundle records of them in `SAMPLES_NAME`."""
        chosen = {kind: selection.to_json() for kind, selection in self.selections.items()}
        return {"limit": self.limit, "seed": self.seed} | chosen

    @property
    def summary(self) -> dict[str, str | int]:
        """Names of the sources, limit and seed, and a digest of all that was chosen."""
        names = {kind: selection.source.name for kind, selection in self.selections.items()}
        digest = hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()
        return {**names, "samples": self.limit, "samples_seed": self.seed, "samples_sha256": digest}

    def usable(self, preprocessing: ImagePreprocessing, tokenizer: Tokenizer, progress: Progress) -> CalibrationDataset:
        """Tries every sample and leaves out what cannot be used; says so.

        Raises:
            ConfigurationError: more than a tenth cannot be used.
            BuildError: a sample changed in the meantime.
        """
        attempts = {
            "images": lambda content: preprocess([content], preprocessing),
            "captions": lambda content: tokenizer.encode([_text(content)]),
        }
        tried: dict[str, Selection] = {}
        for kind, selection in self.selections.items():
            bar = progress.bar(f"own {kind}", selection.contents(), len(selection.used))
            tried[kind] = found = selection.usable(bar, attempts[kind])
            for entry in found.skipped:
                progress.warn(f"skipped of {found.source.name}: {entry.name!r}: {entry.reason}")
            if len(found.used) < ENOUGH:
                progress.warn(
                    f"only {len(found.used)} {kind} of your own are used; {ENOUGH} or more tell better how large "
                    "values get"
                )
        return replace(self, images=tried.get("images"), captions=tried.get("captions"))

    def image_batches(self, preprocessing: ImagePreprocessing) -> Iterator[NDArray[np.uint8]]:
        """Every image by itself, decoded when it is needed: uint8 (1, height, width, 3)."""
        if self.images is not None:
            for _, content in self.images.contents():
                yield preprocess([content], preprocessing)

    def caption_batches(self, tokenizer: Tokenizer) -> Iterator[dict[str, NDArray[np.int64]]]:
        """Every caption by itself, without padding: int64 (1, sequence) each."""
        if self.captions is not None:
            for _, content in self.captions.contents():
                input_ids, attention_mask = tokenizer.pad(tokenizer.encode([_text(content)]))
                yield {"input_ids": input_ids, "attention_mask": attention_mask}


def choose_samples(images: Path | None, captions: Path | None, limit: int, seed: int) -> CalibrationDataset:
    """Chooses at most `limit` samples of each source and reads them once; nothing is decoded.

    Raises:
        ConfigurationError: a source is missing, of an unknown kind, damaged or empty, or more than a tenth of what was
            chosen of it cannot be read.
    """
    return CalibrationDataset(
        images=None if images is None else select(open_images(images), limit, seed),
        captions=None if captions is None else select(open_captions(captions), limit, seed),
        limit=limit,
        seed=seed,
    )


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogatepass")
