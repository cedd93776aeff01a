"""What a run of ``align-bench run`` measured: raw samples, written to JSON and read back.

Percentiles and other derived values are written beside the samples, but never read: they are computed anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from align_runtime.errors import ConfigurationError
from align_runtime.json_files import of_kind, read_object, require

SCHEMA = 2
RUN, SCALING, MEMORY = KINDS = ("run", "scaling", "memory")
DECODE, PREPROCESS, TOKENIZE, END_TO_END = "decode", "preprocess", "tokenize", "end to end"
CLOSED, OPEN = "closed", "open"


@dataclass(frozen=True)
class Case:
    """What one measurement runs: `batch` inputs through a tower in one precision.

    Attributes:
        size: of an input: ``"640x480"`` pixels, or ``"12"`` tokens.
        threads: of one run of the graph; all cores when None.
        streams: single-threaded runs side by side, if the batch is large enough.
    """

    tower: str
    precision: str
    device: str
    batch: int
    size: str
    threads: int | None
    streams: int

    def __str__(self) -> str:
        return f"{self.tower} {self.precision} {self.device}, batch {self.batch} of {self.size_text}"

    @property
    def size_text(self) -> str:
        """``640x480``, ``12 tokens``."""
        return self.size if self.tower == "vision" else f"{self.size} tokens"


@dataclass(frozen=True)
class Timing:
    """Seconds of single calls.

    Attributes:
        stages: samples by stage, in the order of the work. The last stage, `END_TO_END`, is the call of a user, in
            which the other stages may overlap. A device without memory of its own has no copy stages.
        warmup_runs, stable: calls before the samples, and whether their times had settled.
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
    """A fresh process: seconds of import, load and the first call of each tower, and its peak resident memory."""

    precision: str
    device: str
    import_seconds: float
    load_seconds: float
    first_seconds: Mapping[str, float]
    peak_bytes: int


@dataclass(frozen=True)
class Load:
    """Latencies of single inputs under load.

    Attributes:
        kind: ``"closed"``: each of `clients` threads sends its next input when its last one is answered; ``"open"``:
            inputs arrive at `rate` per second whether or not earlier ones are answered, and latency counts from the
            moment at which an input was due.
        seconds: duration of the loop.
        latencies: seconds; in the order of the answers in a closed loop, of arrival in an open one.
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

    def __str__(self) -> str:
        return f"{self.tower} {self.precision} {self.device}, {self.load_text}"

    @property
    def load_text(self) -> str:
        """``4 clients``, ``12.3/s arrive``."""
        if self.rate is not None:
            return f"{self.rate:.1f}/s arrive"
        return "1 client" if self.clients == 1 else f"{self.clients} clients"


@dataclass(frozen=True)
class PeerComparison:
    """Interleaved timing of the bundle and its peers on the same inputs.

    Attributes:
        seconds: of every round, by candidate; the bundle is the first one.
        max_abs: largest absolute difference of an embedding's component from the bundle's, by candidate.
    """

    case: Case
    seconds: Mapping[str, tuple[float, ...]]
    max_abs: Mapping[str, float]


@dataclass(frozen=True)
class BenchRecord:
    """The result of one ``align-bench run``.

    Attributes:
        machine: see `align_bench.machine.describe`.
        load_average: before and after; None where the system does not count it.
        bundle: its name, and the sha256 of its manifest, which holds the sha256 of every other file.
        settings: the options of the command.
    """

    machine: Mapping[str, Any]
    load_average: tuple[float | None, float | None]
    bundle: Mapping[str, str]
    settings: Mapping[str, Any]
    timings: tuple[Timing, ...]
    starts: tuple[Start, ...] = ()
    loads: tuple[Load, ...] = ()
    peer_comparisons: tuple[PeerComparison, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The raw samples as JSON values."""
        return {"schema": SCHEMA, "kind": RUN} | asdict(self)

    @classmethod
    def read(cls, file: Path) -> BenchRecord:
        """Reads a result file.

        Raises:
            ConfigurationError: no such file, or not a result of ``align-bench run`` in this schema.
        """
        return cls.from_json(str(file), read_result(file, (RUN,)))

    @classmethod
    def from_json(cls, where: str, values: Mapping[str, Any]) -> BenchRecord:
        """The record in `values`; errors name `where` they came from.

        Raises:
            ConfigurationError: a key is missing, or a value has another type or is out of range.
        """
        load_average = require(where, values, "load_average", list)
        if len(load_average) != 2:
            raise ConfigurationError(f"{where}: load_average: expected two values, got {len(load_average)}")
        before, after = (of_kind(f"{where}: load_average", value, (float, type(None))) for value in load_average)
        machine = require(where, values, "machine", dict)
        require(f"{where}: machine", machine, "versions", dict)
        for key in ("date", "processor"):
            require(f"{where}: machine", machine, key, str)
        require(f"{where}: machine", machine, "cores", int)
        bundle = require(where, values, "bundle", dict)
        for key in ("name", "manifest_sha256"):
            require(f"{where}: bundle", bundle, key, str)
        return cls(
            machine=machine,
            load_average=(before, after),
            bundle=bundle,
            settings=require(where, values, "settings", dict),
            timings=tuple(_timing(where, value) for value in require(where, values, "timings", list)),
            starts=tuple(_start(where, value) for value in require(where, values, "starts", list)),
            loads=tuple(_load(where, value) for value in require(where, values, "loads", list)),
            peer_comparisons=tuple(
                _peer_comparison(where, value) for value in require(where, values, "peer_comparisons", list)
            ),
        )


def write_json(values: Mapping[str, Any], file: Path) -> None:
    """Writes a result as JSON."""
    file.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_result(file: Path, kinds: tuple[str, ...] = KINDS) -> dict[str, Any]:
    """The JSON object of a result file of one of `kinds`.

    Raises:
        ConfigurationError: no such file, another schema, or another kind of result.
    """
    values = read_object(file)
    schema, kind = values.get("schema"), values.get("kind")
    if schema != SCHEMA or isinstance(schema, bool):
        raise ConfigurationError(f"{file}: expected schema {SCHEMA} of align-bench, got {schema!r}; measure again")
    if kind not in kinds:
        raise ConfigurationError(f"{file}: expected a result of kind {' or '.join(kinds)}, got {kind!r}")
    return values


def _case(where: str, values: Any) -> Case:
    fields = of_kind(f"{where}: case", values, dict)
    case = Case(
        **{key: require(where, fields, key, str) for key in ("tower", "precision", "device", "size")},
        **{key: require(where, fields, key, int) for key in ("batch", "streams")},
        threads=require(where, fields, "threads", (int, type(None))),
    )
    if case.batch < 1:
        raise ConfigurationError(f"{where}: expected a batch of 1 or more, got {case.batch}")
    return case


def _samples(where: str, values: Any) -> dict[str, tuple[float, ...]]:
    fields = of_kind(where, values, dict)
    samples = {
        name: tuple(of_kind(f"{where}: {name}", value, float) for value in of_kind(f"{where}: {name}", series, list))
        for name, series in fields.items()
    }
    for name, series in samples.items():
        if not series or min(series) <= 0:
            raise ConfigurationError(f"{where}: {name!r}: expected positive times, at least one")
    return samples


def _timing(where: str, value: Any) -> Timing:
    fields = of_kind(f"{where}: timings", value, dict)
    stages = _samples(f"{where}: stages", fields.get("stages"))
    if END_TO_END not in stages:
        raise ConfigurationError(f"{where}: a timing has no stage {END_TO_END!r}")
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
    load = Load(
        **{key: require(where, fields, key, str) for key in ("tower", "precision", "device", "kind")},
        clients=require(where, fields, "clients", int),
        rate=require(where, fields, "rate", (float, type(None))),
        seconds=require(where, fields, "seconds", float),
        latencies=_samples(f"{where}: loads", {"latencies": fields.get("latencies")})["latencies"],
    )
    if load.kind not in (CLOSED, OPEN) or (load.kind == OPEN) != (load.rate is not None):
        raise ConfigurationError(f"{where}: loads: expected a closed loop, or an open loop with a rate")
    if not load.seconds > 0 or (load.rate is not None and not load.rate > 0):
        raise ConfigurationError(f"{where}: loads: expected a positive duration and rate")
    return load


def _peer_comparison(where: str, value: Any) -> PeerComparison:
    fields = of_kind(f"{where}: peer_comparisons", value, dict)
    differences = require(where, fields, "max_abs", dict)
    seconds = _samples(f"{where}: seconds", fields.get("seconds"))
    if not seconds or len({len(series) for series in seconds.values()}) != 1:
        raise ConfigurationError(f"{where}: peer_comparisons: expected as many rounds of every candidate")
    return PeerComparison(
        case=_case(where, fields.get("case")),
        seconds=seconds,
        max_abs={name: of_kind(f"{where}: max_abs", value, float) for name, value in differences.items()},
    )
