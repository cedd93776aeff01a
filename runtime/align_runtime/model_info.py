"""What a loaded model says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from align_runtime.image_options import ImageOptions
from align_runtime.loading import Parts, joined
from align_runtime.tower_settings import TowerSettings


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a loaded model; see `Model.info`.

    Attributes:
        name: name of the checkpoint folder, or id on the Hub, that the bundle was exported from.
        revision: commit on the Hub; None for a folder.
        embedding_dim: length of an embedding.
        image_size: (height, width) in pixels of preprocessed images.
        max_length: maximum number of tokens of a text, [CLS] and [SEP] included. Longer texts are truncated.
        temperature: logits are cosines divided by it.
        precision: the variant that runs, e.g. ``"fp32"``; ``"bf16 and int8"`` where `tuned` chose so.
        device: the device that it runs on, never ``"auto"``; ``"openvino and cpu"`` where `tuned` chose so.
        towers: the towers that are loaded, ``"vision"`` and ``"text"``.
        threads: of one run of the first tower on a CPU; None on a GPU.
        streams: number of single-threaded runs of the first tower that share a CPU where there are several inputs; 1
            if there are none.
        image_options: which images are decoded, and what becomes of their transparency.
        settings: what each tower was loaded with, by its name; empty where a server runs them.
        tuned: the file and the target that `settings` are from; None where they are the caller's.
    """

    name: str
    revision: str | None
    embedding_dim: int
    image_size: tuple[int, int]
    max_length: int
    temperature: float
    precision: str
    device: str
    towers: tuple[str, ...]
    threads: int | None
    streams: int
    image_options: ImageOptions
    settings: Mapping[str, TowerSettings] = field(default_factory=dict)
    tuned: tuple[Path, str] | None = None

    @classmethod
    def of(cls, parts: Parts) -> ModelInfo:
        """The facts about `parts`."""
        manifest, first = parts.bundle.manifest, parts.towers[0]
        return cls(
            name=manifest.provenance.name,
            revision=manifest.provenance.revision,
            embedding_dim=manifest.model.embedding_dim,
            image_size=manifest.preprocessing.output_size,
            max_length=manifest.model.max_length,
            temperature=manifest.model.temperature,
            precision=joined(tower.graph.variant for tower in parts.towers),
            device=joined(one.device for one in parts.settings.values()),
            towers=tuple(tower.graph.tower for tower in parts.towers),
            threads=parts.threads,
            streams=first.streams,
            image_options=parts.options.images,
            settings=parts.settings,
            tuned=parts.tuned,
        )
