"""Captions from a file: plain lines, JSON lines, or CSV with a header row."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from align_calibration.dataset.sample_source import Candidate, Skipped, encode, read_lines
from align_runtime.errors import ConfigurationError

KEYS = ("caption", "text")  # the first of them that exists
SUFFIXES = (".txt", ".jsonl", ".csv")
SHOWN_KEYS = 8
SHOWN_CHARACTERS = 40


@dataclass(frozen=True)
class CaptionFile:
    """The captions of the file `path`, without duplicates. A caption is named after the line that it ends on."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def candidates(self) -> Iterator[Candidate]:
        return (Candidate(name, encode(text)) for name, text in self._captions())

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes | Skipped]]:
        return ((name, encode(text)) for name, text in self._captions() if name in names)

    def _captions(self) -> Iterator[tuple[str, str]]:
        readers = {".txt": _read_txt, ".jsonl": _read_jsonl, ".csv": _read_csv}
        return ((f"line {number}", text) for number, text in readers[self.path.suffix.lower()](self.path))


def open_captions(path: Path) -> CaptionFile:
    """The captions in `path`, whose suffix tells the format.

    Raises:
        ConfigurationError: `path` is not a file or has another suffix.
    """
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise ConfigurationError(f"{path} {problem}; pass a caption file with --calibration-captions")
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigurationError(
            f"{path} is not a caption file; expected .txt (one caption per line), .jsonl (one object per line) or .csv "
            f"(with a header row), the last two with {' or '.join(map(repr, KEYS))}"
        )
    return CaptionFile(path)


def _read_txt(path: Path) -> Iterator[tuple[int, str]]:
    """Every line that is not blank."""
    return ((number, line.rstrip("\r\n")) for number, line in read_lines(path) if line.strip())


def _read_jsonl(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in read_lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as reason:
            raise ConfigurationError(f"{where} is not valid JSON: {reason}; expected one object per line") from None
        if not isinstance(value, dict):
            raise ConfigurationError(f"{where}: expected a JSON object, got {type(value).__name__}")
        key = _caption_key(where, value)
        text = value[key]
        if not isinstance(text, str):
            raise ConfigurationError(f"{where}: expected a string under {key!r}, got {type(text).__name__}")
        yield number, text


def _read_csv(path: Path) -> Iterator[tuple[int, str]]:
    rows = csv.reader((line for _, line in read_lines(path)), strict=True)
    try:
        columns, column = 0, None
        for row in rows:
            if not row:
                continue
            where = f"{path}, line {rows.line_num}"
            if column is None:
                key = _caption_key(where, dict.fromkeys(row))
                columns, column = len(row), row.index(key)
                if row.count(key) > 1:
                    raise ConfigurationError(f"{where} has {row.count(key)} columns {key!r}; keep one")
            elif len(row) != columns:
                raise ConfigurationError(f"{where}: expected {columns} columns as in the header, got {len(row)}")
            else:
                yield rows.line_num, row[column]
    except csv.Error as reason:
        raise ConfigurationError(f"{path}, line {rows.line_num} is not valid CSV: {reason}; check the quotes") from None


def _caption_key(where: str, found: Mapping[str, object]) -> str:
    for key in KEYS:
        if key in found:
            return key
    names = ", ".join(repr(name[:SHOWN_CHARACTERS]) for name in list(found)[:SHOWN_KEYS]) or "nothing"
    raise ConfigurationError(f"{where}: expected {' or '.join(map(repr, KEYS))}, got {names}")
