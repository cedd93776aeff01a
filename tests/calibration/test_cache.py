"""Resumable calibration: nothing is measured twice, and only the right statistics are taken from the cache."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align_calibration import histograms
from align_calibration import statistics_cache as cache_module
from align_calibration.histograms import QUIET, Histogram, measure_histograms
from align_calibration.observers import OBSERVERS
from align_calibration.quant_params import UINT8
from align_calibration.run_instrumented import Batch
from align_calibration.statistics_cache import MAX_ENTRIES, Statistics, StatisticsCache
from align_runtime.progress import Progress
from support.graphs import CHAIN, typed

TENSORS = ["x", "a", "b", "c", "y"]
SAMPLES = 4
RUNS = SAMPLES * 2


def samples(seed: int = 0) -> list[Batch]:
    rows = np.random.default_rng(seed).standard_normal((SAMPLES, 1, 4)).astype(np.float32)
    return [{"x": row} for row in rows]


class Counted:
    """`run_batches`, which counts the runs and calls `end` after `last` of them."""

    def __init__(self, last: int = sys.maxsize, end: Callable[[], Any] = lambda: None) -> None:
        self.runs, self._last, self._end = 0, last, end

    def __call__(self, *arguments: Any) -> Iterator[np.ndarray]:
        for output in run_batches(*arguments):
            if self.runs == self._last:
                self._end()
            self.runs += 1
            yield output


run_batches = histograms.run_batches


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write after every run."""
    monkeypatch.setattr(cache_module, "SAVE_SECONDS", 0.0)


class Workplace:
    """Measures in a folder with a cache, and records warnings and the number of runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.warnings, self.runs = folder, list[str](), 0
        self.cache = StatisticsCache(folder / "cache", self.warnings.append)

    @property
    def file(self) -> Path:
        (entry,) = self.cache.folder.iterdir()
        return entry

    def measure(
        self, batches: list[Batch] | None = None, counted: Counted | None = None, progress: Progress = QUIET
    ) -> Mapping[str, Histogram]:
        counted, batches = counted or Counted(), batches or samples()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(histograms, "run_batches", counted)
            try:
                return measure_histograms(typed(CHAIN), TENSORS, batches, self.folder, self.cache, progress)
            finally:
                self.runs = counted.runs


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt also where the tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


@pytest.fixture
def expected(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Histogram]:
    """Histograms measured without a cache."""
    return measure_histograms(typed(CHAIN), TENSORS, samples(), tmp_path_factory.mktemp("expected"))


def assert_equal(found: Mapping[str, Histogram], expected: Mapping[str, Histogram]) -> None:
    assert list(found) == list(expected) == TENSORS
    for name, histogram in expected.items():
        for field, value in vars(histogram).items():
            np.testing.assert_array_equal(getattr(found[name], field), value)


# ── resuming ─────────────────────────────────────────────────────────────────────────────────────────────────────────


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from align_calibration import statistics_cache as cache
from calibration.test_cache import Counted, Workplace
cache.SAVE_SECONDS = 0.0
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
Workplace(Path(sys.argv[1])).measure(counted=Counted(RUNS // 2, kill))
"""


def test_a_killed_calibration_resumes(workplace: Workplace, expected: Mapping[str, Histogram]) -> None:
    program = KILLED.replace("RUNS", str(RUNS))
    done = subprocess.run([sys.executable, "-c", program, str(workplace.folder), *sys.path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert_equal(workplace.measure(), expected)
    assert workplace.runs == RUNS - RUNS // 2
    assert workplace.warnings == []


@pytest.mark.parametrize("last", range(RUNS))
def test_interrupted_after_any_run_the_result_is_the_same(
    last: int, workplace: Workplace, expected: Mapping[str, Histogram]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        workplace.measure(counted=Counted(last, lambda: signal.raise_signal(signal.SIGINT)))
    assert_equal(workplace.measure(), expected)
    assert workplace.runs == RUNS - last


def test_a_run_interrupted_while_it_counts_is_not_counted_twice(
    workplace: Workplace, expected: Mapping[str, Histogram], monkeypatch: pytest.MonkeyPatch
) -> None:
    count, calls = histograms._count, 0

    def stopping(*arguments: Any) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == len(TENSORS) + 2:  # the second tensor of the second sample
            raise KeyboardInterrupt
        return count(*arguments)

    monkeypatch.setattr(histograms, "_count", stopping)
    with pytest.raises(KeyboardInterrupt):
        workplace.measure()
    monkeypatch.setattr(histograms, "_count", count)
    assert_equal(workplace.measure(), expected)
    assert workplace.runs == RUNS - SAMPLES - 1


def test_complete_statistics_are_not_measured_again(workplace: Workplace, expected: Mapping[str, Histogram]) -> None:
    assert_equal(workplace.measure(), expected)
    assert workplace.runs == RUNS
    assert_equal(workplace.measure(), expected)
    assert workplace.runs == 0


@pytest.mark.parametrize("live", [True, False])
def test_progress_resumes_too(live: bool, workplace: Workplace) -> None:
    with pytest.raises(KeyboardInterrupt):
        workplace.measure(counted=Counted(SAMPLES + 2, lambda: signal.raise_signal(signal.SIGINT)))
    stream = io.StringIO()
    stream.isatty = lambda: live  # type: ignore[method-assign]
    workplace.measure(progress=Progress(stream=stream))
    shown = stream.getvalue()
    assert f"  ! {SAMPLES + 2} of {RUNS} calibration runs are taken from the cache" in shown
    counts = [f"{count}/{SAMPLES}" for count in range(SAMPLES)]
    assert [count for count in counts if f"] {count}" in shown] == counts[2:] * live
    assert "ranges" not in shown
    assert shown.count("\n") == 1


def test_one_file_serves_all_observers(workplace: Workplace, expected: Mapping[str, Histogram]) -> None:
    workplace.measure()
    found = workplace.measure()
    for observe in OBSERVERS.values():
        for name, histogram in expected.items():
            assert observe(found[name], UINT8) == observe(histogram, UINT8)
    assert len(list(workplace.cache.folder.iterdir())) == 1


def test_writes_are_save_seconds_apart(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = []
    monkeypatch.setattr(cache_module, "SAVE_SECONDS", 3600.0)
    monkeypatch.setattr(StatisticsCache, "save", lambda self, key, found: saved.append(found.done) or True)
    workplace.measure()
    assert saved == [RUNS]


# ── what is measured again ───────────────────────────────────────────────────────────────────────────────────────────


def test_other_samples_are_measured(workplace: Workplace) -> None:
    workplace.measure()
    first = workplace.file.read_bytes()
    found = workplace.measure(samples(seed=1))
    assert workplace.runs == RUNS
    np.testing.assert_array_equal(found["x"].lows, [batch["x"].min() for batch in samples(seed=1)])
    assert first in [path.read_bytes() for path in workplace.cache.folder.iterdir()]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content + b"\0",
        lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
        lambda content: bytes(len(content)),
    ],
    ids=["half", "empty", "longer", "one bit", "zeros"],
)
def test_a_damaged_file_is_reported_and_measured_again(
    damage: Callable[[bytes], bytes], workplace: Workplace, expected: Mapping[str, Histogram]
) -> None:
    workplace.measure()
    workplace.file.write_bytes(damage(workplace.file.read_bytes()))
    assert_equal(workplace.measure(), expected)
    assert workplace.runs == RUNS
    (warning,) = workplace.warnings
    assert "is damaged" in warning
    assert_equal(workplace.measure(), expected)
    assert (workplace.runs, len(workplace.warnings)) == (0, 1)


def test_a_file_under_another_key_is_not_taken(workplace: Workplace, expected: Mapping[str, Histogram]) -> None:
    workplace.measure(samples(seed=1))
    foreign = workplace.file
    workplace.measure()
    (own,) = set(workplace.cache.folder.iterdir()) - {foreign}
    foreign.replace(own)
    assert_equal(workplace.measure(), expected)
    assert len(workplace.warnings) == 1


def test_values_that_are_not_finite_stay_an_error(workplace: Workplace) -> None:
    bad = samples()
    bad[2] = {"x": np.full((1, 4), np.inf, dtype=np.float32)}
    for _ in range(2):
        with pytest.raises(ValueError, match="NaN"):
            workplace.measure(bad)


# ── the folder ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_that_cannot_be_written_is_reported_once(
    workplace: Workplace, expected: Mapping[str, Histogram]
) -> None:
    workplace.cache.folder.write_text("a file")
    assert_equal(workplace.measure(), expected)
    reading, writing = workplace.warnings
    assert "cannot read" in reading
    assert "cannot write" in writing
    assert "--calibration-cache" in writing


def test_a_full_disk_keeps_the_old_file_and_no_part(
    workplace: Workplace, expected: Mapping[str, Histogram], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device", str(path))

    with pytest.raises(KeyboardInterrupt):
        workplace.measure(counted=Counted(5, lambda: signal.raise_signal(signal.SIGINT)))
    before = workplace.file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert_equal(workplace.measure(), expected)
    assert workplace.file.read_bytes() == before
    (warning,) = workplace.warnings
    assert "No space left on device" in warning


def test_the_newest_entries_are_kept_and_other_files_stay(tmp_path: Path) -> None:
    cache = StatisticsCache(tmp_path, pytest.fail)
    empty = Statistics.empty(1, 1, 4)
    keys = [f"{index:064x}" for index in range(MAX_ENTRIES + 2)]
    killed = tmp_path / f".{keys[0]}.1.statistics"
    killed.write_bytes(b"half of an entry")
    foreign = ["other.txt", *(f"experiment{index}.statistics" for index in range(MAX_ENTRIES + 2))]
    for name in foreign:
        (tmp_path / name).write_text("not ours")
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    for index, key in enumerate(keys):
        cache.save(key, empty)
        os.utime(tmp_path / f"{key}.statistics", (index, index))
        cache.load(keys[0], empty)  # recently used: is kept
    kept = [keys[0], *keys[3:]]
    assert {path.name for path in tmp_path.iterdir()} == {*foreign, *(f"{key}.statistics" for key in kept)}
