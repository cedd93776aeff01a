"""Captions from a file: plain lines, JSON lines, or a table with a heading."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from align_calibration.dataset.source import Candidate, Skipped, identity
from align_calibration.dataset.text_lines import read_lines
from align_runtime.errors import ConfigurationError

KEYS = ("caption", "text")  # the first of them that is there
SUFFIXES = (".txt", ".jsonl", ".csv")


@dataclass(frozen=True)
class CaptionFile:
    """The captions of the file `path`; equal ones are one. A caption is called by the line that it ends on."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def candidates(self) -> Iterator[Candidate]:
        return (Candidate(name, identity(text)) for name, text in self._texts())

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes | Skipped]]:
        return ((name, identity(text)) for name, text in self._texts() if name in names)

    def _texts(self) -> Iterator[tuple[str, str]]:
        readers = {".txt": _plain, ".jsonl": _json_lines, ".csv": _table}
        return ((f"line {number}", text) for number, text in readers[self.path.suffix.lower()](self.path))


def open_captions(path: Path) -> CaptionFile:
    """The captions in `path`, whose name says what it is.

    Raises:
        ConfigurationError: it is not there, or of another kind.
    """
    if not path.is_file():
        raise ConfigurationError(f"{path} {'is no file' if path.exists() else 'does not exist'}; name a caption file")
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigurationError(
            f"{path} is no caption file; known are .txt (one a line), .jsonl (an object a line) and .csv (with a "
            f"heading), the last two with {' or '.join(map(repr, KEYS))}"
        )
    return CaptionFile(path)


def _plain(path: Path) -> Iterator[tuple[int, str]]:
    """Every line that is not blank."""
    return ((number, line.rstrip("\r\n")) for number, line in read_lines(path) if line.strip())


def _json_lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in read_lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as reason:
            raise ConfigurationError(f"{where} is not valid JSON: {reason}; one object a line was expected") from None
        if not isinstance(value, dict):
            raise ConfigurationError(f"{where} holds a JSON {type(value).__name__}; an object was expected")
        text = value[_key(where, value)]
        if not isinstance(text, str):
            raise ConfigurationError(f"{where}: the caption is a {type(text).__name__}; a text was expected")
        yield number, text


def _table(path: Path) -> Iterator[tuple[int, str]]:
    rows = csv.reader((line for _, line in read_lines(path)), strict=True)
    try:
        columns, column = 0, None
        for row in rows:
            if not row:
                continue
            where = f"{path}, line {rows.line_num}"
            if column is None:
                columns, column = len(row), row.index(_key(where, dict.fromkeys(row)))
                if row.count(row[column]) > 1:
                    raise ConfigurationError(f"{where} names {row[column]!r} {row.count(row[column])} times")
            elif len(row) != columns:
                raise ConfigurationError(f"{where} has {len(row)} columns; the heading has {columns}")
            else:
                yield rows.line_num, row[column]
    except csv.Error as reason:
        raise ConfigurationError(f"{path}, line {rows.line_num} is not valid CSV: {reason}") from None


def _key(where: str, found: Mapping[str, object]) -> str:
    for key in KEYS:
        if key in found:
            return key
    names = ", ".join(repr(name) for name in list(found)[:8]) or "nothing"
    raise ConfigurationError(f"{where} names no {' or '.join(map(repr, KEYS))}; it names {names}")
