"""The samples that a user names: pictures, captions or both, chosen, checked, recorded, and made into batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_calibration.samples.caption_file import open_captions
from align_calibration.samples.picture_source import open_pictures
from align_calibration.samples.selection import Selection, select
from align_runtime.console import Progress
from align_runtime.images import preprocess
from align_runtime.preprocessing import ImagePreprocessing
from align_runtime.tokenizer import Tokenizer

SAMPLES_NAME = "samples.json"
ENOUGH = 128  # fewer say little about how large values get


@dataclass(frozen=True)
class OwnSamples:
    """What was chosen. `limit` is how many of each kind at most, `seed` that of the draw."""

    pictures: Selection | None
    captions: Selection | None
    limit: int
    seed: int

    @property
    def selections(self) -> dict[str, Selection]:
        """The kinds that there are: ``"pictures"``, ``"captions"``."""
        kinds = {"pictures": self.pictures, "captions": self.captions}
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

    def usable(self, preprocessing: ImagePreprocessing, tokenizer: Tokenizer, progress: Progress) -> OwnSamples:
        """Tries every sample and leaves out what cannot be used; says so.

        Raises:
            ConfigurationError: more than a tenth cannot be used.
            BuildError: a sample changed in the meantime.
        """
        attempts = {
            "pictures": lambda content: preprocess([content], preprocessing),
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
        return replace(self, pictures=tried.get("pictures"), captions=tried.get("captions"))

    def picture_batches(self, preprocessing: ImagePreprocessing) -> Iterator[NDArray[np.uint8]]:
        """Every picture by itself, decoded when it is needed: uint8 (1, height, width, 3)."""
        if self.pictures is not None:
            for _, content in self.pictures.contents():
                yield preprocess([content], preprocessing)

    def caption_batches(self, tokenizer: Tokenizer) -> Iterator[dict[str, NDArray[np.int64]]]:
        """Every caption by itself, without padding: int64 (1, sequence) each."""
        if self.captions is not None:
            for _, content in self.captions.contents():
                input_ids, attention_mask = tokenizer.pad(tokenizer.encode([_text(content)]))
                yield {"input_ids": input_ids, "attention_mask": attention_mask}


def choose_samples(pictures: Path | None, captions: Path | None, limit: int, seed: int) -> OwnSamples:
    """Chooses at most `limit` samples of each source and reads them once; nothing is decoded.

    Raises:
        ConfigurationError: a source is missing, of an unknown kind, damaged or empty, or more than a tenth of what was
            chosen of it cannot be read.
    """
    return OwnSamples(
        pictures=None if pictures is None else select(open_pictures(pictures), limit, seed),
        captions=None if captions is None else select(open_captions(captions), limit, seed),
        limit=limit,
        seed=seed,
    )


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogatepass")
