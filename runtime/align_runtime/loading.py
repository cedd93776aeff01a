"""Loading: the parts of a model, opened from a bundle."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from align_runtime.bundle import Bundle
from align_runtime.devices import backend_of
from align_runtime.errors import ConfigurationError
from align_runtime.graph_entry import Graph
from align_runtime.image_embedding import ImageEmbedder
from align_runtime.load_options import LoadOptions
from align_runtime.memory import give_back, reported
from align_runtime.processors import available_cores
from align_runtime.text_embedding import TextEmbedder
from align_runtime.tokenizer import Tokenizer
from align_runtime.tower import Tower
from align_runtime.workers import Workers, check_startable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """The towers that were loaded, ready to run, with the preparation of their inputs and the threads they share.

    Attributes:
        bundle: the bundle that they come from.
        options: how it was loaded.
        threads: of one run on a CPU; None on a GPU.
        decoders: threads that decode images.
        workers: threads that run streams.
        vision, text: the towers; None if not loaded. Use `images` and `texts`, which raise an error then.
    """

    bundle: Bundle
    options: LoadOptions
    threads: int | None
    decoders: Workers
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

    def check_open(self) -> None:
        """Raises ConfigurationError if it is closed, or in a forked child."""
        self.workers.check()

    def close(self) -> None:
        """Waits for running work, frees all towers and gives their memory back to the operating system.

        Closing twice is allowed. In a forked child, which has none of the threads, it does nothing.
        """
        with ExitStack() as closing:  # every tower is closed, also after an error of another one
            closing.callback(give_back)
            for tower in self.towers:
                closing.callback(tower.close)
            closing.callback(self.decoders.close)
            self.workers.close()


def open_parts(bundle: str | os.PathLike[str], options: LoadOptions) -> Parts:
    """Opens a bundle; errors are those of `align_runtime.load`."""
    with reported(f"load {bundle!s}"):
        return _open(bundle, options)


def _open(bundle: str | os.PathLike[str], options: LoadOptions) -> Parts:
    start = time.perf_counter()
    opened = Bundle.open(bundle, options.manifest_sha256, complete=False)
    graphs = [opened.graph(name, options.precision, options.device) for name in options.towers]
    with ExitStack() as on_error:
        loaded = _open_towers(opened, graphs, options)
        for tower in loaded.values():
            on_error.callback(tower.close)
        cores = options.threads or available_cores()
        count = max(tower.streams for tower in loaded.values())
        waiting = sum(tower.in_flight for tower in loaded.values() if tower.in_flight > 1)  # threads, for a GPU
        decoders, workers = Workers(options.decode_threads or cores), Workers(max(count, waiting))
        vision, text, preprocessing = loaded.get("vision"), loaded.get("text"), opened.manifest.preprocessing
        parts = Parts(
            bundle=opened,
            options=options,
            threads=cores if backend_of(options.device).on_cpu else None,
            decoders=decoders,
            workers=workers,
            vision=None if vision is None else ImageEmbedder(vision, preprocessing, options.images, decoders, workers),
            text=None if text is None else TextEmbedder(text, _open_tokenizer(opened), workers, options.threads),
        )
        on_error.pop_all()
    give_back()  # what loading took and freed: as much as the weights
    if backend_of(options.device).on_cpu and any(graph.variant == "fp16" for graph in graphs):
        logger.warning("%s: fp16 on a CPU takes more memory than fp32 and is no faster; it is for GPUs", opened.folder)
    remark = opened.manifest.provenance.random_words
    if remark is not None:
        logger.warning("%s: %s", opened.folder, remark)
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


def _open_tokenizer(bundle: Bundle) -> Tokenizer:
    tokenizer = Tokenizer.of_bundle(bundle)
    check_startable(available_cores())  # its pool of threads, which panics where one of them does not start
    tokenizer.encode([""])  # starts them
    return tokenizer


def _open_towers(bundle: Bundle, graphs: Sequence[Graph], options: LoadOptions) -> dict[str, Tower]:
    """Opens `graphs`; on a CPU in parallel, since loading one of them keeps a single core busy.

    If one fails, none is left open, and the error is that of the first in order.
    """
    on_cpu = backend_of(options.device).on_cpu
    opened: list[Tower] = []
    openers = Workers(len(graphs) if on_cpu else 1)

    def open_one(graph: Graph) -> Tower:
        tower = Tower.open(bundle, graph, options)
        opened.append(tower)
        return tower

    try:
        if on_cpu:  # for all at once: each session checks only its own
            check_startable(len(graphs) * ((options.threads or available_cores()) - 1))
        towers = openers.ordered(open_one, graphs, ahead=len(graphs))
        return {graph.tower: tower for graph, tower in zip(graphs, towers, strict=True)}
    except BaseException:
        openers.close()  # waits for those that are still being opened
        for tower in opened:
            tower.close()
        raise
    finally:
        openers.close()
