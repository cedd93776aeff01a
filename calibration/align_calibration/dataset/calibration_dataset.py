"""The calibration dataset: the user's images, captions or both, selected, decoded once, recorded, made into batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_calibration.dataset.caption_files import open_captions
from align_calibration.dataset.image_archives import TarArchive, ZipArchive
from align_calibration.dataset.image_files import ImageFolder, ImageList
from align_calibration.dataset.sample_source import SampleSource, decode
from align_calibration.dataset.selection import Selection, select_samples
from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import printable, shortened
from align_runtime.image_options import DEFAULT_IMAGES, ImageOptions
from align_runtime.images import preprocess
from align_runtime.preprocessing import ImagePreprocessing
from align_runtime.progress import Progress
from align_runtime.tokenizer import Tokenizer

DATASET_NAME = "calibration_dataset.json"
ENOUGH = 128  # samples; fewer give unreliable activation ranges


@dataclass(frozen=True)
class CalibrationDataset:
    """The selected samples.

    Attributes:
        images, captions: None where the user gave none; at least one is given.
        limit: maximum number of samples of each kind.
        seed: of the draw.
        image_options: which images are decoded, and what becomes of their transparency.
    """

    images: Selection | None
    captions: Selection | None
    limit: int
    seed: int
    image_options: ImageOptions = DEFAULT_IMAGES

    @property
    def selections(self) -> dict[str, Selection]:
        """Selections by kind, ``"images"`` and ``"captions"``, without those that are None."""
        kinds = {"images": self.images, "captions": self.captions}
        return {kind: selection for kind, selection in kinds.items() if selection is not None}

    def to_json(self) -> dict[str, Any]:
        """What a bundle records in `DATASET_NAME`."""
        selections = {kind: selection.to_json() for kind, selection in self.selections.items()}
        decoded = {} if self.images is None else {"image_options": asdict(self.image_options)}
        return {"limit": self.limit, "seed": self.seed} | decoded | selections

    @property
    def summary(self) -> dict[str, str | int]:
        """What a manifest records as options of the export: source names, limit, seed, and a hash of the draw."""
        names = {f"calibration_{kind}": printable(selection.source.name) for kind, selection in self.selections.items()}
        digest = hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()
        return {
            **names,
            "max_calibration_samples": self.limit,
            "calibration_seed": self.seed,
            "calibration_sha256": digest,
        }

    def decodable(
        self, preprocessing: ImagePreprocessing, tokenizer: Tokenizer, progress: Progress
    ) -> CalibrationDataset:
        """The same dataset without samples that cannot be decoded or tokenized; warns about each of them.

        Raises:
            ConfigurationError: more than 10 % of the samples cannot be used.
            BuildError: a sample changed since it was selected.
        """
        decoders = {
            "images": lambda content: preprocess([content], preprocessing, self.image_options),
            "captions": lambda content: tokenizer.encode([decode(content)]),
        }
        checked: dict[str, Selection] = {}
        for kind, selection in self.selections.items():
            bar = progress.bar(f"calibration {kind}", selection.contents(), len(selection.samples))
            checked[kind] = found = selection.decodable(bar, decoders[kind])
            for entry in found.skipped:
                reason = printable(entry.reason, 200)
                progress.warn(f"{printable(found.source.name, 100)}: skipped {shortened(entry.name)}: {reason}")
            if len(found.samples) < ENOUGH:
                progress.warn(
                    f"only {len(found.samples)} calibration {kind}; use {ENOUGH} or more for reliable activation ranges"
                )
        return replace(self, images=checked.get("images"), captions=checked.get("captions"))

    def image_batches(self, preprocessing: ImagePreprocessing) -> Iterator[NDArray[np.uint8]]:
        """Images in batches of one, decoded one by one: uint8 (1, height, width, 3)."""
        if self.images is not None:
            for _, content in self.images.contents():
                yield preprocess([content], preprocessing, self.image_options)

    def caption_batches(self, tokenizer: Tokenizer) -> Iterator[dict[str, NDArray[np.int64]]]:
        """`input_ids` and `attention_mask` of captions in batches of one, without padding: int64 (1, sequence) each."""
        if self.captions is not None:
            for _, content in self.captions.contents():
                input_ids, attention_mask = tokenizer.pad(tokenizer.encode([decode(content)]))
                yield {"input_ids": input_ids, "attention_mask": attention_mask}


def select_dataset(
    images: Path | None,
    captions: Path | None,
    limit: int,
    seed: int,
    image_options: ImageOptions = DEFAULT_IMAGES,
) -> CalibrationDataset:
    """Selects at most `limit` samples of each source and reads them once; nothing is decoded.

    Raises:
        ConfigurationError: a source is missing, of an unknown format, damaged or empty, or more than 10 % of the
            samples drawn from it cannot be read.
    """
    return CalibrationDataset(
        images=None if images is None else select_samples(open_images(images), limit, seed),
        captions=None if captions is None else select_samples(open_captions(captions), limit, seed),
        limit=limit,
        seed=seed,
        image_options=image_options,
    )


def open_images(path: Path) -> SampleSource:
    """The images of `path`: a folder, or a file whose suffix tells the format.

    Raises:
        ConfigurationError: `path` does not exist or has another format.
    """
    if path.is_dir():
        return ImageFolder(path)
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise ConfigurationError(f"{path} {problem}; pass images with --calibration-images")
    name = path.name.lower()
    if name.endswith(".txt"):
        return ImageList(path)
    if name.endswith(".zip"):
        return ZipArchive(path)
    if name.endswith((".tar", ".tar.gz", ".tgz")):
        return TarArchive(path)
    raise ConfigurationError(
        f"{path} is not a set of images; expected a folder, a list of paths (.txt), or an archive (.zip, .tar, "
        ".tar.gz, .tgz)"
    )
