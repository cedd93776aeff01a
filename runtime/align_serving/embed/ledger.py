"""``ledger.jsonl``: what a folder of embeddings holds, and which job it belongs to. A line is written when it is true.

::

    {"align_embed": 1, "job": {…}}         bundle, inputs and options: what the rows depend on
    {"run": {…}}                           a start: process and versions
    {"shard": {…}}                         a shard whose files are whole, and whose errors are in errors.jsonl
    {"complete": {…}}                      all inputs are embedded

A process that dies while it writes leaves a part of a line, which the next one removes.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import shortened
from align_serving.embed.shard_files import UNSUPPORTED, sync_folder

if sys.platform != "win32":
    import fcntl

SCHEMA_VERSION = 1
LEDGER_NAME = "ledger.jsonl"
BEGINNING = b'{"align_embed": '

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard.

    Attributes:
        items: the number of items that it stands for.
        rows: of them, those that have an embedding.
        errors_end: bytes of errors.jsonl up to the errors of this shard.
        digest: of its items, see `ItemsDigest`.
        files: sizes in bytes by name.
    """

    items: int
    rows: int
    errors_end: int
    digest: str
    files: Mapping[str, int]


@dataclass
class Ledger:
    """An open ledger, locked for this process.

    Attributes:
        shards: those that are finished, in order.
        runs: the starts, in order.
        complete: whether all inputs are embedded.
    """

    descriptor: int
    path: Path
    job: dict[str, Any] | None = None
    shards: list[ShardRecord] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    complete: bool = False

    def begin(self, job: dict[str, Any]) -> None:
        """Writes the first line of a new ledger."""
        self._append({"align_embed": SCHEMA_VERSION, "job": job})
        sync_folder(self.path.parent)
        sync_folder(self.path.parent.absolute().parent)
        self.job = job

    def clear(self) -> None:
        """Removes all lines."""
        os.ftruncate(self.descriptor, 0)
        self.job, self.runs = None, []

    def add_run(self, run: dict[str, Any]) -> None:
        self._append({"run": run})
        self.runs.append(run)

    def add_shard(self, shard: ShardRecord) -> None:
        self._append({"shard": asdict(shard)})
        self.shards.append(shard)

    def add_completion(self) -> None:
        totals = {"items": sum(shard.items for shard in self.shards), "rows": sum(shard.rows for shard in self.shards)}
        self._append({"complete": totals})
        self.complete = True

    def _append(self, value: dict[str, Any]) -> None:
        line = json.dumps(value).encode() + b"\n"
        while line:
            line = line[os.write(self.descriptor, line) :]
        os.fsync(self.descriptor)

    def read(self, repair: bool = True) -> None:
        """Takes in what was written before; with `repair` a line that was not written to its end is removed.

        Raises:
            ConfigurationError: it is not a ledger of this version.
        """
        content = self.path.read_bytes()
        position = 0
        for number, line in enumerate(content.splitlines(keepends=True), start=1):
            if not self._take(line, number):
                rest = content[position:].splitlines()
                if any(_parsed(later) is not None for later in rest[1:]) or not (self.job or _is_begun(content)):
                    raise self._foreign(number)
                if repair:
                    os.ftruncate(self.descriptor, position)
                break
            position += len(line)

    def _take(self, line: bytes, number: int) -> bool:
        """Whether `line` is whole; it is taken in then."""
        value = _parsed(line)
        if value is None or not line.endswith(b"\n"):
            return False
        try:
            match value:
                case {"align_embed": version, "job": dict(job)} if number == 1:
                    if version != SCHEMA_VERSION:
                        raise ConfigurationError(
                            f"{self.path}: schema version {shortened(version)}; this release reads version "
                            f"{SCHEMA_VERSION}; go on with the release that began it, or take another output"
                        )
                    self.job = job
                case {"run": dict(run)} if self.job is not None:
                    self.runs.append(run)
                case {"shard": dict(shard)} if self.job is not None:
                    self.shards.append(ShardRecord(**shard))
                case {"complete": dict()} if self.job is not None:
                    self.complete = True
                case _:
                    raise self._foreign(number)
        except TypeError:
            raise self._foreign(number) from None
        return True

    def _foreign(self, number: int) -> ConfigurationError:
        return ConfigurationError(
            f"{self.path}, line {number} is not as align-embed writes it; take another output, or remove this one"
        )


def _is_begun(content: bytes) -> bool:
    """Whether `content` may be what is left of the first line: its beginning, or zeros after a loss of power."""
    return BEGINNING.startswith(content[: len(BEGINNING)]) or not content.strip(b"\0")


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


@contextmanager
def open_ledger(folder: Path) -> Iterator[Ledger]:
    """The ledger of `folder`, which is made if it does not exist; no other process can open it until this block ends.

    Raises:
        ConfigurationError: another process has it open, or as in `Ledger.read`.
    """
    path = folder / LEDGER_NAME
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        _lock(descriptor, path)
        ledger = Ledger(descriptor, path)
        ledger.read()
        yield ledger
    finally:
        os.close(descriptor)


def read_ledger(folder: Path) -> Ledger:
    """The ledger of `folder` as it is now; nothing is locked or changed.

    Raises:
        ConfigurationError: there is none, or as in `Ledger.read`.
    """
    path = folder / LEDGER_NAME
    if not path.is_file():
        raise ConfigurationError(f"{folder} is not a folder that align-embed wrote: it has no {LEDGER_NAME}")
    ledger = Ledger(-1, path)
    ledger.read(repair=False)
    if ledger.job is None:
        raise ConfigurationError(f"{path} is empty: align-embed was stopped before it began; start it again")
    return ledger


def recorded_job(folder: Path) -> dict[str, Any] | None:
    """The job that `folder` was begun with; None where there is none."""
    try:
        with (folder / LEDGER_NAME).open("rb") as file:
            job = (_parsed(file.readline()) or {}).get("job")
    except OSError:
        return None
    return job if isinstance(job, dict) else None


def _lock(descriptor: int, path: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise ConfigurationError(
                f"another process{_writer(path)} embeds into {path.parent}; wait for its end, or take another output"
            ) from None
        if error.errno not in UNSUPPORTED:
            raise
        logger.warning("%s cannot be locked (%s): start no second process with this output", path, error.strerror)


def _writer(path: Path) -> str:
    """The id of the process that began last, in brackets."""
    runs = [value["run"] for line in path.read_bytes().splitlines() if (value := _parsed(line)) and "run" in value]
    return f" ({shortened(runs[-1].get('process'))})" if runs and isinstance(runs[-1], dict) else ""
