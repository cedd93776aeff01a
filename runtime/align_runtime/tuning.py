"""``tuning.json``: the settings that ``align-bench tune`` measured, by machine, bundle and target.

It lies in the bundle's folder, like the engines beside what the manifest lists, or where ``--output`` put it. It only
chooses among the graphs of the manifest, so a file from elsewhere changes speed and precision, never weights.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from align_runtime.bundle import Bundle
from align_runtime.engine_files import put_file
from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import printable, shortened
from align_runtime.graph_entry import TOWERS
from align_runtime.json_files import check_keys, number, parse_object, require, text
from align_runtime.machine_key import MachineKey
from align_runtime.manifest import check_sha256
from align_runtime.parity import MAX_COSINE
from align_runtime.regular_files import read_regular
from align_runtime.tower_settings import TowerSettings
from align_runtime.user_path import user_path

FILE_NAME = "tuning.json"
SCHEMA_VERSION = 1
TARGETS = ("latency", "throughput")
MAX_BYTES = 1 << 20  # an entry takes about 1 KiB
MAX_ENTRIES = 512
MOST = 1e9  # milliseconds, and times as fast

Tuned = bool | str | os.PathLike[str]


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
            manifest_sha256=check_sha256(require(where, values, "manifest_sha256", str)),
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


def tuning_file(bundle: Bundle, tuned: Tuned) -> tuple[Path, str | None]:
    """The file that `tuned`, the option of `align_runtime.load`, means, and the target if it names one."""
    if tuned is True or tuned in TARGETS:
        file = bundle.folder / FILE_NAME
        if not file.resolve().is_relative_to(bundle.folder.resolve()):
            raise ConfigurationError(f"{file} is a link that leaves the bundle; name its file: tuned={str(file)!r}")
        return file, None if tuned is True else str(tuned)
    assert not isinstance(tuned, bool)
    return user_path(tuned), None


def find_entry(bundle: Bundle, tuned: Tuned) -> tuple[Path, TuningEntry]:
    """The entry for `bundle` on this machine that `tuned`, the option of `align_runtime.load`, means; and its file.

    Raises:
        ConfigurationError: as in `read_tuning`, or it has none, or two for different targets and `tuned` names none.
    """
    file, target = tuning_file(bundle, tuned)
    elsewhere = "" if file == bundle.folder / FILE_NAME else f" --output {file}"
    command = f"align-bench tune {bundle.folder}{elsewhere}"
    if not os.path.lexists(file):
        raise ConfigurationError(f"tuned is given, but {file} does not exist; measure on this machine: {command}")
    entries = read_tuning(file)
    of_bundle = [entry for entry in entries if entry.manifest_sha256 == bundle.manifest_sha256]
    if not of_bundle:
        raise ConfigurationError(
            f"{file} has no settings for this bundle, sha256 {bundle.manifest_sha256[:16]}…, only for "
            f"{_others(entries)}; measure: {command}"
        )
    here = MachineKey.here()
    of_machine = [entry for entry in of_bundle if entry.machine == here]
    if not of_machine:
        closest = min((entry.machine.differences(here) for entry in of_bundle), key=len)
        raise ConfigurationError(f"{file} has no settings for this machine ({closest}); measure: {command}")
    found = [entry for entry in of_machine if target in (None, entry.target)]
    if not found:
        raise ConfigurationError(
            f"{file} has settings for {of_machine[0].target} on this machine, not for {target}; measure: {command} "
            f"--target {target}"
        )
    if len(found) > 1:
        advice = "keep one file per target" if elsewhere else "name one: tuned='latency' or tuned='throughput'"
        raise ConfigurationError(f"{file} has settings for latency and for throughput on this machine; {advice}")
    return file, found[0]


def tuned_settings(file: Path, entry: TuningEntry, towers: tuple[str, ...]) -> dict[str, TowerSettings]:
    """The settings of `towers` in `entry`, which is from `file`.

    Raises:
        ConfigurationError: a tower was not measured.
    """
    for name in towers:
        if name not in entry.towers:
            raise ConfigurationError(
                f"{file} has {', '.join(entry.towers)} for {entry.target} on this machine, not the {name} tower; "
                f"measure it: align-bench tune … --tower {name} --target {entry.target}"
            )
    return {name: entry.towers[name].settings for name in towers}


def _others(entries: list[TuningEntry]) -> str:
    names = dict.fromkeys(f"{printable(entry.bundle, 40)} ({entry.manifest_sha256[:8]}…)" for entry in entries)
    return ", ".join(list(names)[:3]) or "no bundle"


def finite(value: float) -> float:
    """`value` for JSON, which has no infinity: an interval of few rounds has no bound."""
    return min(max(value, 0.0), MOST) if not math.isnan(value) else 0.0
