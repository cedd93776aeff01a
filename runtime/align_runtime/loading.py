"""Loading: the parts of a model, opened from a bundle."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from align_runtime.bundle import Bundle
from align_runtime.devices import backend_of
from align_runtime.errors import ConfigurationError
from align_runtime.graph_entry import Graph
from align_runtime.image_embedding import ImageEmbedder
from align_runtime.load_options import LoadOptions
from align_runtime.scheduling import Workers, available_cores
from align_runtime.text_embedding import TextEmbedder
from align_runtime.tokenizer import Tokenizer
from align_runtime.tower import Tower

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """The towers that were loaded, ready to run, with the preparation of their inputs and the threads they share.

    Attributes:
        bundle: the bundle that they come from.
        options: how it was loaded.
        threads: of one run on a CPU; None on a GPU.
        workers: threads that decode images and run streams.
        vision, text: the towers; None if not loaded. Use `images` and `texts`, which raise an error then.
    """

    bundle: Bundle
    options: LoadOptions
    threads: int | None
    workers: Workers
    vision: ImageEmbedder | None
    text: TextEmbedder | None

    @property
    def images(self) -> ImageEmbedder:
        """The vision tower; ConfigurationError if it is not loaded."""
        if self.vision is None:
            raise _not_loaded("vision", "text")
        return self.vision

    @property
    def texts(self) -> TextEmbedder:
        """The text tower; ConfigurationError if it is not loaded."""
        if self.text is None:
            raise _not_loaded("text", "vision")
        return self.text

    @property
    def towers(self) -> tuple[Tower, ...]:
        """The towers that were loaded, vision first."""
        return tuple(embedder.tower for embedder in (self.vision, self.text) if embedder is not None)

    def close(self) -> None:
        """Waits for running work and frees all towers. Closing twice is allowed."""
        with ExitStack() as closing:  # every tower is closed, also after an error of another one
            for tower in self.towers:
                closing.callback(tower.close)
            self.workers.close()


def open_parts(bundle: str | os.PathLike[str], options: LoadOptions) -> Parts:
    """Opens a bundle; errors are those of `align_runtime.load`."""
    start = time.perf_counter()
    opened = Bundle.open(bundle, options.manifest_sha256)
    graphs = [opened.graph(name, options.precision, options.device) for name in options.towers]
    with ExitStack() as on_error:
        loaded = _open_towers(opened, graphs, options)
        for tower in loaded.values():
            on_error.callback(tower.close)
        manifest, cores = opened.manifest, options.threads or available_cores()
        count = max(tower.streams for tower in loaded.values())
        waiting = sum(tower.in_flight for tower in loaded.values() if tower.in_flight > 1)  # threads, for a GPU
        workers = Workers(max(count, cores) + waiting)
        parts = Parts(
            bundle=opened,
            options=options,
            threads=cores if backend_of(options.device).on_cpu else None,
            workers=workers,
            vision=(
                ImageEmbedder(loaded["vision"], manifest.preprocessing, options.images, workers)
                if "vision" in loaded
                else None
            ),
            text=TextEmbedder(loaded["text"], Tokenizer.of_bundle(opened), workers) if "text" in loaded else None,
        )
        on_error.pop_all()
    if manifest.provenance.random_words is not None:
        logger.warning("%s: %s", opened.folder, manifest.provenance.random_words)
    logger.info(
        "loaded %s of %s on %s (threads: %s, streams: %d) in %.2f s",
        ", ".join(graph.file for graph in graphs),
        opened.folder,
        options.device,
        parts.threads,
        count,
        time.perf_counter() - start,
    )
    return parts


def _not_loaded(missing: str, other: str) -> ConfigurationError:
    return ConfigurationError(
        f"the {missing} tower is not loaded, only {other}; load the bundle with towers=('vision', 'text') or "
        f"towers=('{missing}',)"
    )


def _open_towers(bundle: Bundle, graphs: Sequence[Graph], options: LoadOptions) -> dict[str, Tower]:
    """Opens `graphs`; on a CPU in parallel, since loading one of them keeps a single core busy.

    If one fails, none is left open, and the error is that of the first in order.
    """
    jobs: list[Future[Tower]] = []
    try:
        with ThreadPoolExecutor(len(graphs) if backend_of(options.device).on_cpu else 1) as pool:
            for graph in graphs:
                jobs.append(pool.submit(Tower.open, bundle, graph, options))
        return {graph.tower: job.result() for graph, job in zip(graphs, jobs, strict=True)}
    except BaseException:
        for job in jobs:
            if job.exception() is None:
                job.result().close()
        raise
