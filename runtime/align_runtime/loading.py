"""Loading: the parts of a model, opened from a bundle."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from align_runtime.bundle import Bundle
from align_runtime.errors import ConfigurationError
from align_runtime.graph_entry import Graph
from align_runtime.image_embedding import ImageEmbedder
from align_runtime.load_options import LoadOptions, check_pin
from align_runtime.memory import give_back, reported
from align_runtime.processors import available_cores
from align_runtime.runs import Runs
from align_runtime.text_embedding import TextEmbedder
from align_runtime.tokenizer import Tokenizer
from align_runtime.tower import Tower
from align_runtime.tower_settings import TowerSettings
from align_runtime.tuned_choice import find_entry, tuned_settings
from align_runtime.workers import Workers, check_startable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """The towers that were loaded, ready to run, with the preparation of their inputs and the threads they share.

    Attributes:
        bundle: the bundle that they come from.
        options: how it was loaded.
        settings: of each tower.
        tuned: the file and the target that `settings` are from; None without `tuned`.
        threads: of one run of the first tower on a CPU; None on a GPU.
        decoders: threads that decode images.
        workers: threads that run streams.
        vision, text: the towers; None if not loaded. Use `images` and `texts`, which raise an error then.
    """

    bundle: Bundle
    options: LoadOptions
    settings: Mapping[str, TowerSettings]
    tuned: tuple[Path, str] | None
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
    settings, tuned = _settings(opened, options)
    graphs = [opened.graph(name, one.precision, one.device) for name, one in settings.items()]
    with ExitStack() as on_error:
        loaded = _open_towers(opened, graphs, settings, options)
        for tower in loaded.values():
            on_error.callback(tower.close)
        cores = {name: one.threads or available_cores() for name, one in settings.items()}
        count = max(tower.streams for tower in loaded.values())
        waiting = sum(tower.in_flight for tower in loaded.values() if tower.in_flight > 1)  # threads, for a GPU
        first = options.towers[0]  # vision, where it is loaded: what decodes images
        decoders, workers = Workers(options.decode_threads or cores[first]), Workers(max(count, waiting))
        parts = Parts(
            bundle=opened,
            options=options,
            settings=settings,
            tuned=tuned,
            threads=cores[first] if settings[first].on_cpu else None,
            decoders=decoders,
            workers=workers,
            vision=_image_embedder(opened, loaded, settings, options, decoders, workers),
            text=_text_embedder(opened, loaded, settings, workers),
        )
        on_error.pop_all()
    give_back()  # what loading took and freed: as much as the weights
    if any(graph.variant == "fp16" and settings[graph.tower].on_cpu for graph in graphs):
        logger.warning("%s: fp16 on a CPU takes more memory than fp32 and is no faster; it is for GPUs", opened.folder)
    remark = opened.manifest.provenance.random_words
    if remark is not None:
        logger.warning("%s: %s", opened.folder, remark)
    logger.info(
        "loaded %s of %s on %s (threads: %s, streams: %d) in %.2f s",
        ", ".join(graph.file for graph in graphs),
        opened.folder,
        joined(one.device for one in settings.values()),
        parts.threads,
        count,
        time.perf_counter() - start,
    )
    if tuned is not None:
        chosen = "; ".join(f"{name}: {one}" for name, one in settings.items())
        logger.info("settings for %s from %s: %s", tuned[1], tuned[0], chosen)
    return parts


def joined(names: Iterable[str]) -> str:
    """What the towers have, once where it is the same: ``"int8"``, ``"bf16 and int8"``."""
    return " and ".join(dict.fromkeys(names))


def _settings(bundle: Bundle, options: LoadOptions) -> tuple[dict[str, TowerSettings], tuple[Path, str] | None]:
    """The settings of each tower that `options` load and, with `tuned`, the file and target that they are from."""
    if options.tuned is False:
        return dict.fromkeys(options.towers, options.settings), None
    file, entry = find_entry(bundle, options.tuned)
    settings = tuned_settings(file, entry, tuple(options.towers))
    if options.manifest_sha256 is not None:
        check_pin(options.manifest_sha256, *(one.device for one in settings.values()))
    return settings, (file, entry.target)


def _image_embedder(
    bundle: Bundle,
    loaded: Mapping[str, Tower],
    settings: Mapping[str, TowerSettings],
    options: LoadOptions,
    decoders: Workers,
    workers: Workers,
) -> ImageEmbedder | None:
    if (tower := loaded.get("vision")) is None:
        return None
    batch = settings["vision"].batch_size
    return ImageEmbedder(tower, bundle.manifest.preprocessing, options.images, decoders, workers, batch)


def _text_embedder(
    bundle: Bundle, loaded: Mapping[str, Tower], settings: Mapping[str, TowerSettings], workers: Workers
) -> TextEmbedder | None:
    if (tower := loaded.get("text")) is None:
        return None
    chosen = settings["text"]
    return TextEmbedder(tower, _open_tokenizer(bundle), workers, chosen.threads, chosen.batch_size)


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


def _open_towers(
    bundle: Bundle, graphs: Sequence[Graph], settings: Mapping[str, TowerSettings], options: LoadOptions
) -> dict[str, Tower]:
    """Opens `graphs`; on a CPU in parallel, since loading one of them keeps a single core busy.

    If one fails, none is left open, and the error is that of the first in order.
    """
    on_cpu = all(one.on_cpu for one in settings.values())
    opened: list[Tower] = []
    runs = Runs()
    openers = Workers(len(graphs) if on_cpu else 1)

    def open_one(graph: Graph) -> Tower:
        tower = Tower.open(bundle, graph, settings[graph.tower], options, runs)
        opened.append(tower)
        return tower

    try:
        if on_cpu:  # for all at once: each session checks only its own
            check_startable(sum((one.threads or available_cores()) - 1 for one in settings.values()))
        towers = openers.ordered(open_one, graphs, ahead=len(graphs))
        return {graph.tower: tower for graph, tower in zip(graphs, towers, strict=True)}
    except BaseException:
        openers.close()  # waits for those that are still being opened
        for tower in opened:
            tower.close()
        raise
    finally:
        openers.close()
