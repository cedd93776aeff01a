"""Finds the measured settings that ``align_runtime.load(…, tuned=…)`` asks for: of this machine, bundle and target."""

from __future__ import annotations

import os
from pathlib import Path

from align_runtime.bundle import Bundle
from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import printable
from align_runtime.machine_key import MachineKey
from align_runtime.tower_settings import TowerSettings
from align_runtime.tuning import FILE_NAME, TARGETS, TuningEntry, read_tuning
from align_runtime.user_path import user_path

Tuned = bool | str | os.PathLike[str]


def tuning_file(bundle: Bundle, tuned: Tuned) -> tuple[Path, str | None]:
    """The file that `tuned`, the option of `align_runtime.load`, means, and the target if it names one.

    A path may end in ``:latency`` or ``:throughput``.
    """
    if tuned is True or tuned in TARGETS:
        file = bundle.folder / FILE_NAME
        if not file.resolve().is_relative_to(bundle.folder.resolve()):
            raise ConfigurationError(f"{file} is a link that leaves the bundle; name its file: tuned={str(file)!r}")
        return file, None if tuned is True else str(tuned)
    assert not isinstance(tuned, bool)
    path = user_path(tuned)
    name, _, target = path.name.rpartition(":")
    return (path.with_name(name), target) if name and target in TARGETS else (path, None)


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
        prefix = f"{file}:" if elsewhere else ""
        raise ConfigurationError(
            f"{file} has settings for latency and for throughput on this machine; name one: tuned='{prefix}latency' or "
            f"tuned='{prefix}throughput'"
        )
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
                f"measure it: align-bench tune … --towers {name} --target {entry.target}"
            )
    return {name: entry.towers[name].settings for name in towers}


def _others(entries: list[TuningEntry]) -> str:
    names = dict.fromkeys(f"{printable(entry.bundle, 40)} ({entry.manifest_sha256[:8]}…)" for entry in entries)
    return ", ".join(list(names)[:3]) or "no bundle"
