"""The search of `align-bench tune`, with made-up models on a clock of their own: what is chosen, and when it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from align_bench.tune.candidates import batch_sizes, settings_to_try
from align_bench.tune.search import (
    BELOW,
    CHOSEN,
    DEFAULT,
    FASTER,
    FINAL_ROUNDS,
    LEFT_OUT,
    NO_TIME,
    SLOWER,
    UNAVAILABLE,
    Outcome,
    Search,
)
from align_runtime import Bundle
from align_runtime.errors import BackendUnavailableError, BundleError, ConfigurationError, DeviceError, ParityError
from align_runtime.tower_settings import TowerSettings

DEFAULTS = TowerSettings()
INT8 = TowerSettings("int8")
BF16 = TowerSettings("bf16", "openvino")
CUDA = TowerSettings("fp32", "cuda")
ONE = TowerSettings(threads=1)


@dataclass
class FakeLab:
    """Models whose runs take the seconds of `costs`, times `drift` of the run's number, on a clock that they move."""

    costs: Mapping[TowerSettings, float]
    cosines: Mapping[TowerSettings, float] = field(default_factory=dict)
    missing: Mapping[TowerSettings, Exception] = field(default_factory=dict)
    drift: Callable[[int], float] = lambda _: 1.0
    opening: float = 0.5
    now: float = 0.0
    runs: int = 0
    held: int = 0
    most_held: int = 0
    opened: list[TowerSettings] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    @contextmanager
    def open(self, settings: TowerSettings) -> Iterator[FakeModel]:
        self.now += self.opening
        self.opened.append(settings)
        if settings in self.missing:
            raise self.missing[settings]
        self.held += 1
        self.most_held = max(self.most_held, self.held)
        yield FakeModel(self, settings, self.cosines.get(settings, 1.0))
        self.held -= 1


@dataclass
class FakeModel:
    lab: FakeLab
    settings: TowerSettings
    cosine: float
    worst: str = "cat.jpg"
    items: int = 4

    def run(self, batch_size: int | None) -> None:
        self.lab.runs += 1
        self.lab.now += self.lab.costs[replace(self.settings, batch_size=batch_size)] * self.lab.drift(self.lab.runs)


def search(
    lab: FakeLab, *others: TowerSettings, seconds: float | None = 100, **options: object
) -> tuple[Outcome, Search]:
    found = Search([DEFAULTS, *others], lab.open, 0.99, seconds, clock=lab.clock, **options)  # type: ignore[arg-type]
    return found.run(), found


def test_the_fastest_is_chosen_with_its_ratio_and_cosine() -> None:
    lab = FakeLab({DEFAULTS: 0.4, INT8: 0.2, BF16: 0.25, ONE: 0.8}, {INT8: 0.995, BF16: 0.9999})
    chosen, found = search(lab, ONE, BF16, INT8)
    assert (chosen.settings, chosen.verdict, chosen.cosine) == (INT8, CHOSEN, 0.995)
    assert chosen.ratio == pytest.approx(2)
    assert chosen.seconds == pytest.approx(0.05)  # per input
    assert chosen.rounds >= FINAL_ROUNDS
    assert {one: outcome.verdict for one, outcome in found.outcomes.items()} == {
        DEFAULTS: DEFAULT, ONE: LEFT_OUT, BF16: FASTER, INT8: CHOSEN
    }  # fmt: skip
    assert lab.most_held <= 3
    assert lab.held == 0


def test_what_is_below_the_floor_is_shown_and_never_chosen() -> None:
    for cosine in (0.9899, float("nan")):
        lab = FakeLab({DEFAULTS: 0.4, INT8: 0.1}, {INT8: cosine})
        chosen, found = search(lab, INT8, replace(INT8, threads=1))
        assert chosen.settings == DEFAULTS
        assert [found.outcomes[one].verdict for one in (INT8, replace(INT8, threads=1))] == [BELOW, BELOW]
        assert found.outcomes[INT8].cosine is not None
        assert replace(INT8, threads=1) not in lab.opened  # the same graph on the same device


def test_a_floor_that_the_default_does_not_reach_is_an_error() -> None:
    with pytest.raises(ParityError) as caught:
        search(FakeLab({DEFAULTS: 0.4}, {DEFAULTS: 0.98}))
    assert (caught.value.metric, caught.value.limit, caught.value.observed) == ("min_cosine", 0.99, 0.98)
    assert caught.value.sample == "cat.jpg"


def test_noise_chooses_nothing() -> None:
    """A candidate that is 3 % faster on a machine that varies by a third from run to run."""
    noisy = [1.0, 1.31, 0.93, 1.22, 0.89, 1.13, 1.27]
    lab = FakeLab({DEFAULTS: 0.4, ONE: 0.388}, drift=lambda run: noisy[run * run % 7])
    chosen, found = search(lab, ONE)
    assert (chosen.settings, chosen.verdict) == (DEFAULTS, DEFAULT)
    outcome = found.outcomes[ONE]
    assert outcome.verdict == SLOWER
    assert outcome.note
    assert outcome.comparison is not None


def test_a_machine_that_becomes_slower_does_not_change_the_choice() -> None:
    lab = FakeLab({DEFAULTS: 0.4, INT8: 0.3, BF16: 0.35}, drift=lambda run: 1 + run / 50)
    chosen, _ = search(lab, BF16, INT8)
    assert chosen.settings == INT8
    assert chosen.ratio == pytest.approx(4 / 3, rel=0.03)


def test_of_equally_fast_ones_the_most_accurate_then_the_plainest_is_chosen() -> None:
    plain, fine = TowerSettings("fp32", "openvino"), replace(INT8, threads=1)
    lab = FakeLab({DEFAULTS: 0.4, INT8: 0.2, plain: 0.2}, {INT8: 0.992})
    assert search(lab, INT8, plain)[0].settings == plain
    lab = FakeLab({DEFAULTS: 0.4, INT8: 0.2, fine: 0.2}, {INT8: 0.992, fine: 0.992})
    assert search(lab, fine, INT8)[0].settings == INT8


def test_batch_sizes_are_tried_with_the_fastest_settings() -> None:
    batched = replace(INT8, batch_size=16)
    lab = FakeLab({DEFAULTS: 0.4, INT8: 0.2, BF16: 0.3, batched: 0.1, replace(INT8, batch_size=8): 0.3})
    chosen, found = search(lab, BF16, INT8, batch_sizes=lambda one: (8, 16) if one == INT8 else ())
    assert (chosen.settings, chosen.ratio) == (batched, pytest.approx(4))
    assert replace(BF16, batch_size=16) not in found.outcomes
    assert lab.most_held <= 3


def test_the_default_with_another_batch_size_can_win_without_a_second_model() -> None:
    batched = replace(DEFAULTS, batch_size=16)
    lab = FakeLab({DEFAULTS: 0.4, batched: 0.2})
    chosen, _ = search(lab, batch_sizes=lambda _: (16,))
    assert chosen.settings == batched
    assert lab.most_held == 1


def test_devices_that_are_missing_are_told_unless_they_were_asked_for() -> None:
    missing = BackendUnavailableError("no CUDA here")
    lab = FakeLab({DEFAULTS: 0.4}, missing={CUDA: missing, INT8: BundleError("rows that are no embeddings")})
    chosen, found = search(lab, CUDA, INT8)
    assert chosen.settings == DEFAULTS
    assert (found.outcomes[CUDA].verdict, found.outcomes[CUDA].note) == (UNAVAILABLE, "no CUDA here")
    assert found.outcomes[INT8].verdict == UNAVAILABLE
    with pytest.raises(BackendUnavailableError, match="no CUDA here"):
        search(lab, CUDA, required=["cpu", "cuda"])


def test_a_finalist_that_finds_no_memory_beside_the_others_is_left_out() -> None:
    class Crowded(FakeLab):
        @contextmanager
        def open(self, settings: TowerSettings) -> Iterator[FakeModel]:
            if self.held == 2:
                raise DeviceError("out of memory")
            with super().open(settings) as model:
                yield model

    chosen, found = search(Crowded({DEFAULTS: 0.4, INT8: 0.2, BF16: 0.3}), BF16, INT8)
    assert chosen.settings == INT8
    assert (found.outcomes[BF16].verdict, found.outcomes[BF16].note) == (UNAVAILABLE, "out of memory")


def test_what_there_is_no_time_for_is_told_and_the_rest_is_still_chosen() -> None:
    slow = [TowerSettings("fp32", "cpu", threads) for threads in range(2, 30)]
    lab = FakeLab({DEFAULTS: 1.0, INT8: 0.5} | dict.fromkeys(slow, 2.0))
    chosen, found = search(lab, INT8, *slow, seconds=20)
    assert chosen.settings == INT8
    verdicts = [outcome.verdict for outcome in found.outcomes.values()]
    assert NO_TIME in verdicts
    assert len(verdicts) == 30
    assert lab.now < 20 + 60  # the final rounds are always measured
    # Without a budget there is time for all.
    chosen, found = search(FakeLab(lab.costs), INT8, *slow, seconds=None)
    assert chosen.settings == INT8
    assert NO_TIME not in [outcome.verdict for outcome in found.outcomes.values()]


def test_halving_measures_the_faster_half_again() -> None:
    costs = {TowerSettings(threads=count): 0.4 - count / 100 for count in range(1, 17)}
    lab = FakeLab({DEFAULTS: 0.4} | costs)
    chosen, found = search(lab, *costs, seconds=1000)
    assert chosen.settings == TowerSettings(threads=16)
    times = {one: lab.opened.count(one) for one in costs}
    assert times[TowerSettings(threads=1)] == 1
    assert times[TowerSettings(threads=16)] == 5  # 16, 8, 4, 2 candidates, and the final
    assert all(outcome.ratio for outcome in found.outcomes.values())


def test_candidates_begin_with_the_default_and_stay_within_the_machine(tiny_fp16_bundle: Path) -> None:
    bundle = Bundle.open(tiny_fp16_bundle)
    found = settings_to_try(bundle, "vision", "latency", 8)
    assert found[0] == DEFAULTS
    assert [one.threads for one in found if (one.device, one.precision) == ("cpu", "fp32")] == [None, 4, 2, 1]
    assert {(one.device, one.precision) for one in found} == {
        ("cpu", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"), ("cuda", "fp32"), ("cuda", "fp16"),
        ("tensorrt", "fp32"), ("tensorrt", "fp16"), ("tensorrt-rtx", "fp32"), ("tensorrt-rtx", "fp16"),
    }  # fmt: skip
    many = settings_to_try(bundle, "text", "throughput", 8, ["cpu"])
    assert many == [TowerSettings(streams=streams) for streams in (None, 4, 1)]
    assert settings_to_try(bundle, "text", "throughput", 1, ["cpu"]) == [DEFAULTS]
    asked = settings_to_try(bundle, "text", "latency", 1, ["cpu"], ["fp16", "fp32"])
    assert asked == [TowerSettings("fp16"), DEFAULTS]
    assert len(found) == len(set(found))
    for precisions in (["int8"], ["fp32", "int8"]):
        with pytest.raises(ConfigurationError, match="int8"):
            settings_to_try(bundle, "vision", "latency", 2, ["cpu"], precisions)


def test_batch_sizes_are_for_throughput_on_cpus() -> None:
    assert batch_sizes("text", "throughput", DEFAULTS) == (8, 16, 64)
    assert batch_sizes("text", "latency", DEFAULTS) == ()
    assert batch_sizes("vision", "throughput", CUDA) == ()
