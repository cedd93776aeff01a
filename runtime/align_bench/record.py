"""What a bench measured, raw: the JSON that everything shown is derived from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from align_runtime.errors import ConfigurationError
from align_runtime.json_files import of_kind, read_object, require

SCHEMA = 1
END_TO_END = "end to end"


@dataclass(frozen=True)
class Case:
    """One thing that is measured: `batch` inputs through a tower in one precision.

    Attributes:
        size: of an input: ``"640x480"`` pixels, or ``"12"`` tokens.
        threads: of one run, all cores when None.
        streams: single-threaded runs side by side, where the batch is large enough.
    """

    tower: str
    precision: str
    device: str
    batch: int
    size: str
    threads: int | None
    streams: int

    def __str__(self) -> str:
        unit = "" if self.tower == "vision" else " tokens"
        return f"{self.tower} {self.precision} {self.device}, batch {self.batch} of {self.size}{unit}"


@dataclass(frozen=True)
class Timing:
    """Seconds of single runs.

    Attributes:
        stages: samples by stage in the order of the work; the last one, `END_TO_END`, is the call that a user makes,
            in which stages may overlap. A device that copies nothing has no stages of copying.
        warmup_runs, stable: runs of the whole call before the samples, and whether they had become steady.
    """

    case: Case
    stages: Mapping[str, tuple[float, ...]]
    warmup_runs: int
    stable: bool

    @property
    def end_to_end(self) -> tuple[float, ...]:
        return self.stages[END_TO_END]


@dataclass(frozen=True)
class Start:
    """A fresh process: import, load, first call, and the most memory it ever had."""

    precision: str
    device: str
    import_seconds: float
    load_seconds: float
    first_seconds: Mapping[str, float]
    peak_bytes: int


@dataclass(frozen=True)
class Load:
    """Latencies of single inputs while others are served.

    Attributes:
        kind: ``"closed"``: `clients` threads, each of which sends its next input when the last one is answered;
            ``"open"``: inputs arrive at `rate` per second whether or not the last one is answered, and their latency
            counts from the moment at which they were due.
        seconds: that it went on.
        latencies: seconds, in the order of arrival.
    """

    tower: str
    precision: str
    device: str
    kind: str
    clients: int
    rate: float | None
    seconds: float
    latencies: tuple[float, ...]

    @property
    def throughput(self) -> float:
        """Inputs answered per second."""
        return len(self.latencies) / self.seconds


@dataclass(frozen=True)
class Contest:
    """This bundle and others, in turns on the same inputs: seconds of every round by contestant, ours first.

    Attributes:
        max_abs: the largest difference of an embedding's component from ours, by contestant.
    """

    case: Case
    seconds: Mapping[str, tuple[float, ...]]
    max_abs: Mapping[str, float]


@dataclass(frozen=True)
class BenchRecord:
    """One run of ``align-bench``.

    Attributes:
        machine: see `machine.describe`.
        load_average: before and after; None where the system does not tell.
        bundle: name, and sha256 of its manifest, which holds the sha256 of everything else.
        settings: the options of the command.
    """

    machine: Mapping[str, Any]
    load_average: tuple[float | None, float | None]
    bundle: Mapping[str, str]
    settings: Mapping[str, Any]
    timings: tuple[Timing, ...]
    starts: tuple[Start, ...] = ()
    loads: tuple[Load, ...] = ()
    contests: tuple[Contest, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA} | asdict(self)

    def write(self, file: Path) -> None:
        """Writes the record as JSON."""
        file.write_text(json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> BenchRecord:
        """Reads what `write` wrote.

        Raises:
            ConfigurationError: no such file, or not a record of this schema.
        """
        values, where = read_object(file), str(file)
        if values.get("schema") != SCHEMA:
            raise ConfigurationError(
                f"{file} has schema {values.get('schema')!r}; {SCHEMA}, of align-bench, was expected"
            )
        before, after = (of_kind(where, value, (float, type(None))) for value in _pair(where, values))
        return cls(
            machine=require(where, values, "machine", dict),
            load_average=(before, after),
            bundle=require(where, values, "bundle", dict),
            settings=require(where, values, "settings", dict),
            timings=tuple(_timing(where, value) for value in require(where, values, "timings", list)),
            starts=tuple(_start(where, value) for value in require(where, values, "starts", list)),
            loads=tuple(_load(where, value) for value in require(where, values, "loads", list)),
            contests=tuple(_contest(where, value) for value in require(where, values, "contests", list)),
        )


def _pair(where: str, values: Mapping[str, Any]) -> Sequence[Any]:
    pair: list[Any] = require(where, values, "load_average", list)
    if len(pair) != 2:
        raise ConfigurationError(f"{where}: load_average has {len(pair)} values; before and after were expected")
    return pair


def _case(where: str, values: Any) -> Case:
    fields = of_kind(f"{where}: case", values, dict)
    case = Case(
        **{key: require(where, fields, key, str) for key in ("tower", "precision", "device", "size")},
        **{key: require(where, fields, key, int) for key in ("batch", "streams")},
        threads=require(where, fields, "threads", (int, type(None))),
    )
    if case.batch < 1:
        raise ConfigurationError(f"{where}: a case has a batch of {case.batch}")
    return case


def _samples(where: str, values: Any) -> dict[str, tuple[float, ...]]:
    fields = of_kind(where, values, dict)
    samples = {
        name: tuple(of_kind(f"{where}: {name}", value, float) for value in of_kind(f"{where}: {name}", series, list))
        for name, series in fields.items()
    }
    for name, series in samples.items():
        if not series or min(series) <= 0:
            raise ConfigurationError(f"{where}: {name!r} has no samples, or times that are not positive")
    return samples


def _timing(where: str, value: Any) -> Timing:
    fields = of_kind(f"{where}: timings", value, dict)
    stages = _samples(f"{where}: stages", fields.get("stages"))
    if END_TO_END not in stages:
        raise ConfigurationError(f"{where}: a timing lacks the stage {END_TO_END!r}")
    return Timing(
        case=_case(where, fields.get("case")),
        stages=stages,
        warmup_runs=require(where, fields, "warmup_runs", int),
        stable=require(where, fields, "stable", bool),
    )


def _start(where: str, value: Any) -> Start:
    fields = of_kind(f"{where}: starts", value, dict)
    first = require(where, fields, "first_seconds", dict)
    return Start(
        **{key: require(where, fields, key, str) for key in ("precision", "device")},
        **{key: require(where, fields, key, float) for key in ("import_seconds", "load_seconds")},
        first_seconds={name: of_kind(f"{where}: first_seconds", seconds, float) for name, seconds in first.items()},
        peak_bytes=require(where, fields, "peak_bytes", int),
    )


def _load(where: str, value: Any) -> Load:
    fields = of_kind(f"{where}: loads", value, dict)
    return Load(
        **{key: require(where, fields, key, str) for key in ("tower", "precision", "device", "kind")},
        clients=require(where, fields, "clients", int),
        rate=require(where, fields, "rate", (float, type(None))),
        seconds=require(where, fields, "seconds", float),
        latencies=_samples(f"{where}: loads", {"latencies": fields.get("latencies")})["latencies"],
    )


def _contest(where: str, value: Any) -> Contest:
    fields = of_kind(f"{where}: contests", value, dict)
    differences = require(where, fields, "max_abs", dict)
    return Contest(
        case=_case(where, fields.get("case")),
        seconds=_samples(f"{where}: seconds", fields.get("seconds")),
        max_abs={name: of_kind(f"{where}: max_abs", number, float) for name, number in differences.items()},
    )
