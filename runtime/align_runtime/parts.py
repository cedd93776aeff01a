"""What a model is made of, opened from a bundle."""

from __future__ import annotations

import os
from dataclasses import dataclass

from align_runtime.backends import resolve_device
from align_runtime.bundle import Bundle
from align_runtime.errors import AlignError
from align_runtime.image_embedding import ImageEmbedder
from align_runtime.streams import available_cores
from align_runtime.text_embedding import TextEmbedder
from align_runtime.tokenizer import Tokenizer
from align_runtime.tower import Tower
from align_runtime.workers import Workers


@dataclass(frozen=True)
class Parts:
    """Both towers, ready to run, with what prepares their inputs and the threads that they share."""

    bundle: Bundle
    images: ImageEmbedder
    texts: TextEmbedder
    workers: Workers


def open_parts(
    bundle: str | os.PathLike[str],
    precision: str = "fp32",
    device: str = "cpu",
    threads: int | None = None,
    check_hashes: bool = False,
    streams: int | None = None,
) -> Parts:
    """Opens a bundle; arguments and errors are those of `align_runtime.load`."""
    device = resolve_device(device)
    opened = Bundle.open(bundle)
    graphs = [opened.graph(tower, precision, device) for tower in ("vision", "text")]
    towers: list[Tower] = []
    try:
        for graph in graphs:
            towers.append(Tower.open(opened, graph, device, threads, streams, check_hashes))
        facts = opened.manifest.model
        tokenizer = Tokenizer.from_file(opened.check_hash("tokenizer.json"), facts.max_length, facts.pad_token_id)
    except AlignError:
        for tower in towers:
            tower.close()
        raise
    vision, text = towers
    workers = Workers(max(vision.streams, threads or available_cores()))
    images = ImageEmbedder(vision, opened.manifest.preprocessing, workers)
    return Parts(opened, images, TextEmbedder(text, tokenizer, workers), workers)
