"""What a model is made of, opened from a bundle."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from align_runtime.backends import resolve_device
from align_runtime.bundle import Bundle
from align_runtime.errors import AlignError
from align_runtime.graph_entry import Graph
from align_runtime.image_embedding import ImageEmbedder
from align_runtime.scheduling import Workers, available_cores
from align_runtime.text_embedding import TextEmbedder
from align_runtime.tokenizer import Tokenizer
from align_runtime.tower import Tower


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
    vision, text = _open_towers(opened, graphs, device, threads, streams, check_hashes)
    try:
        facts = opened.manifest.model
        tokenizer = Tokenizer.from_file(opened.check_hash("tokenizer.json"), facts.max_length, facts.pad_token_id)
    except AlignError:
        vision.close()
        text.close()
        raise
    workers = Workers(max(vision.streams, threads or available_cores()))
    images = ImageEmbedder(vision, opened.manifest.preprocessing, workers)
    return Parts(opened, images, TextEmbedder(text, tokenizer, workers), workers)


def _open_towers(
    bundle: Bundle, graphs: Sequence[Graph], device: str, threads: int | None, streams: int | None, check_hashes: bool
) -> list[Tower]:
    """On a CPU both at once, for loading keeps one core busy.

    Where one fails none is left open, and the error is that of the first in order.
    """
    with ThreadPoolExecutor(len(graphs) if device == "cpu" else 1) as pool:
        jobs = [pool.submit(Tower.open, bundle, graph, device, threads, streams, check_hashes) for graph in graphs]
    towers = [job.result() for job in jobs if job.exception() is None]
    for job in jobs:
        if error := job.exception():
            for tower in towers:
                tower.close()
            raise error
    return towers
