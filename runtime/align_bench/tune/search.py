"""The search: each candidate against the default in interleaved rounds; the faster half is measured again, with more.

Successive halving (Jamieson and Talwalkar, 2016, arXiv:1502.07943) of ratios: a candidate is compared with the default
in the same rounds only, so that what slows the machine down for minutes slows both. At most three models are in memory:
the default and two candidates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from statistics import median
from typing import Protocol

from align_bench.interleaved import Clock, speedup, time_interleaved
from align_bench.statistics import Comparison, compare_paired
from align_bench.timing import timed
from align_runtime.errors import BackendUnavailableError, BundleError, DeviceError, ParityError
from align_runtime.tower_settings import TowerSettings

FIRST_ROUNDS = 2  # of the first rung; doubled in each further one
MORE = 4  # times as many, where there is time
FINAL_ROUNDS = 8  # at least; a ratio needs seven
MOST_ROUNDS = 24
FINALISTS = 2
HOPELESS = 0.8  # times as fast as the default: not measured again
LEAST_SECONDS, MOST_SECONDS = 30.0, 900.0  # of a search without a budget
RUNS = 16  # that such a search has time for, on average, of each candidate and of the default beside it
SAME_ACCURACY = 4  # digits of a cosine

CHOSEN, FASTER, DEFAULT, SLOWER = "chosen", "faster", "default", "not faster"
LEFT_OUT, BELOW, UNAVAILABLE, NO_TIME = "not in the final", "below the floor", "unavailable", "no time"


class Loaded(Protocol):
    """One tower in memory, with the settings that it was opened with.

    Attributes:
        cosine: smallest cosine of its embeddings with those of FP32.
        worst: name of the input with that one.
        items: inputs of one run.
    """

    cosine: float
    worst: str
    items: int

    def run(self, batch_size: int | None) -> object:
        """One timed run."""


Open = Callable[[TowerSettings], AbstractContextManager[Loaded]]


@dataclass(frozen=True)
class Outcome:
    """What was found about one candidate.

    Attributes:
        verdict: `CHOSEN`, `FASTER`, `DEFAULT`, `SLOWER`, `LEFT_OUT`, `BELOW`, `UNAVAILABLE` or `NO_TIME`.
        seconds: median per input in its last rounds; None where it was not timed.
        ratio: the default's time over its own, in the same rounds.
        comparison: of the final rounds; None for those that did not get there.
        cosine: smallest cosine with FP32; None where it was not computed.
        rounds: of its last rung.
        note: why it is unavailable, or within noise.
    """

    settings: TowerSettings
    verdict: str
    seconds: float | None = None
    ratio: float | None = None
    comparison: Comparison | None = None
    cosine: float | None = None
    rounds: int = 0
    note: str = ""


class Search:
    """One search, for one tower and one target."""

    def __init__(
        self,
        candidates: Sequence[TowerSettings],
        open_settings: Open,
        floor: float,
        seconds: float | None = None,
        *,
        batch_sizes: Callable[[TowerSettings], Sequence[int]] = lambda _: (),
        required: Sequence[str] = (),
        clock: Clock = time.perf_counter,
        show: Callable[[str], None] = lambda _: None,
    ) -> None:
        """A search over `candidates`, whose first one is the default.

        Args:
            floor: smallest cosine with FP32 that is allowed.
            seconds: about how long it may take; the final rounds are always measured. None: by the number of candidates
                and the speed of the default.
            batch_sizes: to be tried with the fastest settings.
            required: devices that must be available.
            show: is told what is measured.
        """
        self._default, *self._others = candidates
        self._open, self._floor, self._seconds = open_settings, floor, seconds
        self._batch_sizes, self._required = batch_sizes, required
        self._clock, self._show = clock, show
        self._start = clock()
        self.outcomes: dict[TowerSettings, Outcome] = {}

    def run(self) -> Outcome:
        """The outcome of the chosen settings; those of all are in `outcomes`, in the order in which they were tried.

        Raises:
            ParityError: the default itself is below the floor.
            BackendUnavailableError: the default's device, or one of `required`, is not available.
        """
        with self._open(self._default) as default:
            if not default.cosine >= self._floor:
                advice = "even the default is below the floor: lower --min-cosine, or check the bundle: align-verify"
                raise ParityError(str(self._default), "min_cosine", self._floor, default.cosine, default.worst, advice)
            self._set_budget(default)
            self.outcomes[self._default] = Outcome(self._default, DEFAULT, cosine=default.cosine)
            alive, rounds = self._rung(default, self._others, FIRST_ROUNDS), FIRST_ROUNDS
            self._check_required()
            while len(alive) > FINALISTS:
                rounds = min(2 * rounds, FINAL_ROUNDS)
                alive = self._rung(default, alive[: max(FINALISTS, (len(alive) + 1) // 2)], rounds)
            return self._final(default, [*self._batched(default, alive), *alive])

    def _set_budget(self, default: Loaded) -> None:
        """The end of the search, from a run of the default that is warm."""
        default.run(self._default.batch_size)
        one = timed(lambda: default.run(self._default.batch_size), self._clock)
        if self._seconds is None:
            opening = self._clock() - self._start
            wanted = (1 + len(self._others)) * (opening + RUNS * 2 * one)
            self._seconds = min(max(wanted, LEAST_SECONDS), MOST_SECONDS)
        self._end = self._start + self._seconds

    @property
    def _left(self) -> float:
        return self._end - self._clock()

    def _rung(self, default: Loaded, candidates: Sequence[TowerSettings], rounds: int) -> list[TowerSettings]:
        """Measures `candidates` with half of the time left; returns those worth measuring again, the fastest first."""
        end = self._clock() + self._left / 2
        for index, settings in enumerate(candidates):
            if not self._skipped(settings):
                self._show(f"{settings} ({index + 1}/{len(candidates)})")
                self._measure(default, settings, rounds, (end - self._clock()) / (len(candidates) - index))
        ratios = {settings: self.outcomes[settings].ratio for settings in candidates}
        worth = {settings: ratio for settings, ratio in ratios.items() if ratio is not None and ratio >= HOPELESS}
        return sorted(worth, key=lambda settings: -worth[settings])

    def _skipped(self, settings: TowerSettings) -> bool:
        """Whether it is not measured in this rung, which its outcome then says."""
        known = self.outcomes.get(settings)
        if known is None:
            alike = (settings.device, settings.precision)
            for one in self.outcomes.values():
                if (one.settings.device, one.settings.precision) == alike and one.verdict in (UNAVAILABLE, BELOW):
                    self.outcomes[settings] = replace(one, settings=settings)
                    return True
            if self._left <= 0:
                self.outcomes[settings] = Outcome(settings, NO_TIME)
        return self._left <= 0

    def _check_required(self) -> None:
        for device in self._required:
            found = [one for one in self.outcomes.values() if one.settings.device == device]
            if found and all(one.verdict == UNAVAILABLE for one in found):
                raise BackendUnavailableError(found[0].note)

    def _measure(self, default: Loaded, settings: TowerSettings, rounds: int, seconds: float) -> None:
        try:
            with self._open(settings) as loaded:
                if not loaded.cosine >= self._floor:
                    self.outcomes[settings] = Outcome(settings, BELOW, cosine=loaded.cosine)
                    return
                self._time({self._default: default, settings: loaded}, rounds, MORE * rounds, seconds)
        except (BackendUnavailableError, DeviceError, BundleError) as error:  # BundleError: rows that are no embeddings
            self.outcomes[settings] = Outcome(settings, UNAVAILABLE, note=str(error))

    def _time(
        self, models: dict[TowerSettings, Loaded], least: int, most: int, seconds: float
    ) -> dict[TowerSettings, list[float]]:
        """Seconds per input of interleaved rounds of `models`, the default first; writes the outcomes."""
        runs = {str(index): _run_of(models[settings], settings) for index, settings in enumerate(models)}
        once = sum(timed(run, self._clock) for run in runs.values())  # warms them up, too
        rounds = max(least, min(most, int(seconds / (2 * once)) if once else most))
        times = time_interleaved(runs, rounds + rounds % 2, self._clock, warmup=0)
        per_input = {
            settings: [value / loaded.items for value in series]
            for (settings, loaded), series in zip(models.items(), times.values(), strict=True)
        }
        first = per_input[next(iter(per_input))]
        for settings, series in per_input.items():
            self.outcomes[settings] = Outcome(
                settings,
                DEFAULT if settings == self._default else LEFT_OUT,
                median(series),
                speedup(first, series),
                cosine=models[settings].cosine,
                rounds=len(series),
            )
        return per_input

    def _batched(self, default: Loaded, alive: Sequence[TowerSettings]) -> list[TowerSettings]:
        """The fastest settings with the batch size that is the best for them, if that is faster in a few rounds."""
        leader = alive[0] if alive and (self.outcomes[alive[0]].ratio or 0) > 1 else self._default
        variants = [replace(leader, batch_size=size) for size in self._batch_sizes(leader)]
        if not variants or self._left <= 0:
            return []
        self._show(f"{leader}: batch sizes")
        with ExitStack() as opened:
            loaded = default if leader == self._default else opened.enter_context(self._open(leader))
            models = {self._default: default, leader: loaded} | dict.fromkeys(variants, loaded)
            self._time(models, FIRST_ROUNDS, FINAL_ROUNDS, self._left / 2)
        best = max(variants, key=lambda one: self.outcomes[one].ratio or 0)
        return [best] if (self.outcomes[best].ratio or 0) > (self.outcomes[leader].ratio or 1) else []

    def _final(self, default: Loaded, finalists: Sequence[TowerSettings]) -> Outcome:
        """Measures all finalists in the same rounds and chooses."""
        if not finalists:
            self._time({self._default: default}, FINAL_ROUNDS, FINAL_ROUNDS, 0)
            return self.outcomes[self._default]
        self._show("finalists: " + "; ".join(map(str, finalists)))
        with ExitStack() as opened:
            models, held = {self._default: default}, {self._default: default}
            for settings in finalists:
                model = replace(settings, batch_size=None)
                try:
                    if model not in held:
                        held[model] = opened.enter_context(self._open(model))
                    models[settings] = held[model]
                except DeviceError as error:  # no memory for one more model
                    self.outcomes[settings] = replace(self.outcomes[settings], verdict=UNAVAILABLE, note=str(error))
            times = self._time(models, FINAL_ROUNDS, MOST_ROUNDS, self._left)
        measured = [settings for settings in finalists if settings in models]
        for settings in measured:
            comparison = compare_paired(times[self._default], times[settings])
            faster = comparison.ratio > 1 and comparison.within_noise is None
            self.outcomes[settings] = replace(
                self.outcomes[settings],
                verdict=FASTER if faster else SLOWER,
                ratio=comparison.ratio,
                comparison=comparison,
                note=comparison.within_noise or "",
            )
        winners = [settings for settings in measured if self.outcomes[settings].verdict == FASTER]
        if not winners:
            return self.outcomes[self._default]
        chosen = self._best(winners, times)
        self.outcomes[chosen] = replace(self.outcomes[chosen], verdict=CHOSEN)
        return self.outcomes[chosen]

    def _best(self, winners: Sequence[TowerSettings], times: dict[TowerSettings, list[float]]) -> TowerSettings:
        """The fastest; of those that it is not shown to be faster than, the most accurate, then the plainest."""
        ratios = {settings: self.outcomes[settings].ratio or 0 for settings in winners}
        fastest = max(winners, key=lambda one: ratios[one])
        equal = [
            one
            for one in winners
            if one == fastest or compare_paired(times[one], times[fastest]).within_noise is not None
        ]

        def merit(one: TowerSettings) -> tuple[float, int, float]:
            set_here = sum(value is not None for value in (one.threads, one.streams, one.batch_size))
            return round(self.outcomes[one].cosine or 0, SAME_ACCURACY), -set_here, ratios[one]

        return max(equal, key=merit)


def _run_of(loaded: Loaded, settings: TowerSettings) -> Callable[[], object]:
    return lambda: loaded.run(settings.batch_size)
