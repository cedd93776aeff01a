"""``tuning.json``: the settings that ``align-bench tune`` measured, by machine, bundle and target.

It lies in the bundle's folder, like the engines beside what the manifest lists, or where ``--output`` put it. It only
chooses among the graphs of the manifest, so a file from elsewhere changes speed and precision, never weights.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from align_runtime.engine_files import put_file
from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import shortened
from align_runtime.graph_entry import TOWERS
from align_runtime.json_files import check_keys, number, parse_object, require, text
from align_runtime.machine_key import MachineKey
from align_runtime.manifest import check_sha256
from align_runtime.parity import MAX_COSINE
from align_runtime.regular_files import read_regular
from align_runtime.tower_settings import TowerSettings

FILE_NAME = "tuning.json"
SCHEMA_VERSION = 1
TARGETS = ("latency", "throughput")
MAX_BYTES = 1 << 20  # an entry takes about 1 KiB
MAX_ENTRIES = 512
MOST = 1e9  # milliseconds, and times as fast


@dataclass(frozen=True)
class TunedTower:
    """The settings of one tower, and what was measured of them.

    Attributes:
        floor: smallest cosine that was allowed.
        cosine: smallest cosine of its embeddings with those of FP32, over `inputs`.
        inputs: of the comparison: ``"golden"`` or ``"golden, own"``.
        milliseconds: median per input.
        speedup, low, high: over the settings that it was compared with, and the 95 % interval; 1 where those stay.
        date: ISO 8601, UTC.
    """

    settings: TowerSettings
    floor: float
    cosine: float
    inputs: str
    milliseconds: float
    speedup: float
    low: float
    high: float
    date: str

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> TunedTower:
        check_keys(where, values, [*TowerSettings.__dataclass_fields__, *list(cls.__dataclass_fields__)[1:]])

        def within(name: str, least: float, most: float) -> float:
            return float(number(where, values, name, float, least, most))

        return cls(
            settings=TowerSettings.from_json(values, where),
            floor=within("floor", -1, 1),
            cosine=within("cosine", -1, MAX_COSINE),
            inputs=text(where, values, "inputs"),
            milliseconds=within("milliseconds", 0, MOST),
            speedup=within("speedup", 0, MOST),
            low=within("low", 0, MOST),
            high=within("high", 0, MOST),
            date=text(where, values, "date"),
        )

    def to_json(self) -> dict[str, Any]:
        """The settings and the other fields, side by side."""
        return self.settings.to_json() | {name: value for name, value in vars(self).items() if name != "settings"}


@dataclass(frozen=True)
class TuningEntry:
    """The settings of a bundle for one target on one machine.

    Attributes:
        target: of `TARGETS`.
        bundle: name of what it was exported from, for readers; `manifest_sha256` is what counts.
        towers: those that were measured.
    """

    machine: MachineKey
    target: str
    bundle: str
    manifest_sha256: str
    towers: Mapping[str, TunedTower]

    @classmethod
    def from_json(cls, values: object, where: str) -> TuningEntry:
        if not isinstance(values, dict):
            raise ConfigurationError(f"{where} is {shortened(values)}; expected an object")
        check_keys(where, values, cls.__dataclass_fields__)
        target, towers = require(where, values, "target", str), require(where, values, "towers", dict)
        machine = MachineKey.from_json(require(where, values, "machine", dict), f"{where}: machine")
        if target not in TARGETS:
            raise ConfigurationError(f"{where}: target is {shortened(target)}; expected {' or '.join(TARGETS)}")
        if not towers or not set(towers) <= set(TOWERS):
            raise ConfigurationError(f"{where}: towers are {shortened(list(towers))}; expected {', '.join(TOWERS)}")
        measured = {
            name: TunedTower.from_json(require(where, towers, name, dict), f"{where}: {name}") for name in towers
        }
        for name, tower in measured.items():
            for key in ("threads", "streams"):
                if (getattr(tower.settings, key) or 0) > machine.cores:
                    raise ConfigurationError(
                        f"{where}: {name}: {key} is {getattr(tower.settings, key)} on a machine with {machine.cores} "
                        "cores; measure anew with align-bench tune"
                    )
        return cls(
            machine=machine,
            target=target,
            bundle=text(where, values, "bundle"),
            manifest_sha256=_sha256(where, values),
            towers=measured,
        )

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return {
            "machine": self.machine.to_json(),
            "target": self.target,
            "bundle": self.bundle,
            "manifest_sha256": self.manifest_sha256,
            "towers": {name: tower.to_json() for name, tower in self.towers.items()},
        }

    def replaces(self, other: TuningEntry) -> bool:
        """Whether both are of the same machine, bundle and target."""
        mine, others = ((one.machine, one.target, one.manifest_sha256) for one in (self, other))
        return mine == others


def _sha256(where: str, values: Mapping[str, Any]) -> str:
    try:
        return check_sha256(require(where, values, "manifest_sha256", str))
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {str(error).removeprefix(f'{where}: ')}") from None


def read_tuning(file: Path) -> list[TuningEntry]:
    """The entries of `file`.

    Raises:
        ConfigurationError: it is missing, no regular file, larger than `MAX_BYTES`, not JSON, or of another schema
            version; it has unknown or missing keys, a value out of range, or two entries for one machine, bundle and
            target.
    """
    where, content = str(file), read_regular(file, MAX_BYTES, ConfigurationError)
    values = parse_object(content, where, ConfigurationError, unique_keys=True)
    if require(where, values, "schema_version", int) != SCHEMA_VERSION:
        raise ConfigurationError(
            f"{where}: schema_version is {shortened(values['schema_version'])}, expected {SCHEMA_VERSION}; remove the "
            "file, and write it anew with align-bench tune"
        )
    check_keys(where, values, ("schema_version", "entries"))
    listed = require(where, values, "entries", list)
    if len(listed) > MAX_ENTRIES:
        raise ConfigurationError(f"{where} has {len(listed)} entries; expected at most {MAX_ENTRIES}")
    entries = [TuningEntry.from_json(one, f"{where}: entry {index}") for index, one in enumerate(listed)]
    for index, entry in enumerate(entries):
        if any(entry.replaces(other) for other in entries[:index]):
            raise ConfigurationError(f"{where}: entry {index} has the machine, bundle and target of another one")
    return entries


def add_entry(file: Path, entry: TuningEntry) -> None:
    """Writes `entry` into `file`, in place of the towers that it measured before; other entries stay.

    Raises:
        ConfigurationError: `file` exists and cannot be read.
        OSError: it cannot be written.
    """
    entries = read_tuning(file) if os.path.lexists(file) else []
    for known in entries:
        if entry.replaces(known):
            entry = replace(entry, towers={**known.towers, **entry.towers})
    kept = [known for known in entries if not entry.replaces(known)]
    values = {"schema_version": SCHEMA_VERSION, "entries": [one.to_json() for one in [*kept, entry][-MAX_ENTRIES:]]}
    put_file(file, (json.dumps(values, indent=1, allow_nan=False) + "\n").encode())
