"""Processors: which they are, and how many this process may use, by its CPU affinity and the quotas of its groups.

A container with ``--cpus 2`` on a host of 64 cores sees 64 of them; its quota is in the files of the control group.
Quotas apply down the hierarchy, so the smallest on the way from the process's group to the root counts.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import shortened

ROOT = Path("/")
VECTORS = ("amx_int8", "avx512_bf16", "avx512_vnni", "avx_vnni", "avx512f", "avx2")  # kernels are chosen by these
MAX_THREADS = 1024  # any number would be started, until the machine is out of memory
_QUOTA = re.compile(r"([1-9]\d{0,17}) ([1-9]\d{0,17})$", re.ASCII)  # microseconds of processors, in each period


@dataclass(frozen=True)
class _Version:
    """Of control groups: the controller that limits processors, and the files with its quota and period."""

    controller: str
    files: tuple[str, ...]


_VERSIONS = {  # by type of file system
    "cgroup2": _Version("", ("cpu.max",)),
    "cgroup": _Version("cpu", ("cpu.cfs_quota_us", "cpu.cfs_period_us")),
}


def available_cores(root: Path = ROOT) -> int:
    """The number of logical processors that this process may use, at least 1. A quota of 1.5 processors counts as 2.

    Args:
        root: of the file system with ``proc``; for tests.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(ceil(quota) for quota in _quotas(root))]))


def processor_name() -> str:
    """The model name of the processor, and its vector extensions."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        return platform.processor() or platform.machine()
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", "").split()
    vectors = ", ".join(name for name in VECTORS if name in flags)
    return f"{fields.get('model name', platform.machine())} ({vectors or 'none of ' + ', '.join(VECTORS)})"


def check_thread_count(option: str, threads: int | None) -> None:
    """Raises ConfigurationError unless `threads`, the value of `option`, is None or an integer in range."""
    if threads is not None and (type(threads) is not int or not 1 <= threads <= MAX_THREADS):
        raise ConfigurationError(
            f"{option} is {shortened(threads)}; expected 1 to {MAX_THREADS}, or None for all cores"
        )


def limited_cores() -> int | None:
    """`available_cores` where the process may not use the whole machine, otherwise None.

    ONNX Runtime's own choice, one thread for each physical core of the machine, knows neither affinity nor quotas.
    """
    cores = available_cores()
    return cores if cores < (os.cpu_count() or 1) else None


def _quotas(root: Path) -> Iterator[float]:
    """Processors that each control group around this process allows. What cannot be read is no limit."""
    paths: dict[str, str] = {}  # of this process's group, by its controllers
    for line in _text(root / "proc/self/cgroup").splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        paths |= dict.fromkeys(controllers.split(","), path)  # version 2 has one group, without controllers: ""
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, after = ([*part.split(), *[""] * 5] for part in [*line.split(" - ", 1), ""][:2])
        version = _VERSIONS.get(after[0])
        if version is None or version.controller not in paths.keys() & {"", *after[2].split(",")}:
            continue  # no control groups, those of another controller, or none of this process
        mount = root / _unescaped(before[4]).lstrip("/")
        below = _below(paths[version.controller], _unescaped(before[3]))
        for depth in range(len(below) + 1):
            found = _QUOTA.match(" ".join(_text(mount.joinpath(*below[:depth], name)) for name in version.files))
            if found:
                yield int(found[1]) / int(found[2])


def _below(path: str, mounted: str) -> list[str]:
    """The part of `path` below `mounted`, the group that is the root of the mount; in a container it may be outside."""
    parts, top = [part for part in path.split("/") if part], [part for part in mounted.split("/") if part]
    below = parts[len(top) :] if parts[: len(top)] == top else []
    return [] if ".." in below else below


def _unescaped(field: str) -> str:
    """A path of ``mountinfo``, in which spaces and the like are octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
