"""This bundle against peers, in turns on the same inputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_bench.peers import Contestant, PeerRequest, find_peer
from align_bench.record import Case, Contest
from align_bench.statistics import MIN_PAIRS
from align_bench.subject import Subject
from align_runtime.bundle import Bundle
from align_runtime.errors import ConfigurationError, InputError

OURS = "align-onnx"


def take_turns(
    contestants: Mapping[str, Contestant], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[dict[str, tuple[float, ...]], dict[str, float]]:
    """Runs `contestants` in turns, and in the opposite order in every second round.

    At its turn a contestant runs twice and the second run counts: the first one waits for threads of the contestant
    before it, which may spin for a while after their last task.

    Returns:
        seconds of every round, and the largest difference of a component from the first contestant, by contestant.

    Raises:
        ConfigurationError: fewer rounds than a ratio needs.
        InputError: a contestant that gives an array of another shape, or values that are not finite.
    """
    if rounds < MIN_PAIRS:
        raise ConfigurationError(f"{rounds} rounds are too few for a ratio; {MIN_PAIRS} or more are needed")
    results = {name: run() for name, run in contestants.items()}
    first = next(iter(results.values()))
    for name, embeds in results.items():
        if embeds.shape != first.shape or not np.isfinite(embeds).all():
            raise InputError(f"{name} gives {embeds.shape}, or values that are not finite; {first.shape} was expected")
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds):
        for name in list(contestants)[:: -1 if turn % 2 else 1]:
            contestants[name]()
            start = clock()
            contestants[name]()
            seconds[name].append(clock() - start)
    differences = {name: float(np.abs(embeds - first).max()) for name, embeds in results.items()}
    return {name: tuple(series) for name, series in seconds.items()}, differences


def contest(subject: Subject, case: Case, peers: Sequence[str], rounds: int, checkpoint: Path | None) -> Contest:
    """Our embedding of preprocessed inputs, streams included, against that of `peers`.

    Raises:
        ConfigurationError, BackendUnavailableError: a peer that cannot be had.
    """
    inputs = subject.inputs(case)
    if case.tower == "vision":
        pixels = subject.pixels(inputs)
        tensors: dict[str, NDArray[Any]] = {"pixels": pixels}
        ours: Contestant = partial(subject.model.embed_pixels, pixels)
    else:
        texts = subject.parts.texts
        rows = texts.tokenizer.encode(inputs)
        tensors = dict(zip(("input_ids", "attention_mask"), texts.tokenizer.pad(rows), strict=True))
        ours = partial(texts.embed_rows, rows)
    request = PeerRequest(subject.bundle, case, tensors, checkpoint)
    contestants = {OURS: ours} | {name: find_peer(name)(request) for name in peers}
    return Contest(case, *take_turns(contestants, rounds))


def check_peers(bundle: Bundle, peers: Sequence[str], checkpoint: Path | None) -> None:
    """Raises for a peer that cannot be had, before anything is measured."""
    for name in peers:
        find_peer(name)
    if checkpoint is not None and not checkpoint.exists():
        raise ConfigurationError(f"{checkpoint} does not exist; {bundle.manifest.provenance.name} was the checkpoint")
