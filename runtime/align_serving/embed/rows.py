"""Rows of text files, lines of .txt, objects of .jsonl, rows of .csv: texts to embed, or paths of images."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from align_runtime.errors import ConfigurationError, InputError
from align_runtime.foreign_text import shortened
from align_runtime.regular_files import open_regular
from align_serving.embed.image_sources import image_file
from align_serving.embed.items import Item, Kind, failing, text_id

COLUMNS: dict[Kind, tuple[str, ...]] = {"texts": ("text", "caption"), "images": ("image", "path", "file_name", "file")}
ID_COLUMN = "id"
MAX_LINE_BYTES = 8 << 20  # twice the size of the longest text that the tokenizer accepts
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:")


@dataclass(frozen=True)
class Columns:
    """Which columns, or keys of objects, are read; None for the first of `COLUMNS`, and `ID_COLUMN` if it exists."""

    value: str | None = None
    id: str | None = None

    def value_of(self, kind: Kind, names: Sequence[str]) -> str | None:
        """The column of `names` that is embedded; None where it is not among them."""
        wanted = COLUMNS[kind] if self.value is None else (self.value,)
        return next((name for name in wanted if name in names), None)

    def id_of(self, names: Sequence[str]) -> str | None:
        """The column of `names` with the ids; None where rows are named after their place.

        Raises:
            InputError: the column that was asked for is missing.
        """
        if self.id is not None and self.id not in names:
            raise InputError(f"there is no {shortened(self.id)} to take the id from")
        return self.id or (ID_COLUMN if ID_COLUMN in names else None)

    def missing(self, kinds: Sequence[Kind], names: Sequence[str]) -> str:
        """What to say where `value_of` finds nothing for any of `kinds`."""
        wanted = [name for kind in kinds for name in COLUMNS[kind]] if self.value is None else [self.value]
        found = shortened(list(names)) if names else "none"
        return f"expected a column {' or '.join(map(repr, wanted))}, got {found}; name it with --column"


DEFAULT_COLUMNS = Columns()


class Row(NamedTuple):
    """A row: its number, from 1; the user's id; a text or path, or why there is none; bytes in the file."""

    number: int
    id: str | None
    value: str | InputError
    size: int


@dataclass(frozen=True)
class TextRows:
    """The rows of the file `path`. A row without an id of the user's is called ``FILE:NUMBER``, a path by itself."""

    path: Path
    kind: Kind
    columns: Columns

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def in_files(self) -> bool:
        return self.kind == "images"

    @property
    def units(self) -> int:
        return self.path.stat().st_size

    def describe(self) -> dict[str, Any]:
        return {"rows": text_id(self.name), "bytes": self.units}

    def items(self) -> Iterator[Item]:
        for row in READERS[self.path.suffix.lower()](self.path, self.kind, self.columns):
            yield row_item(self.path, self.kind, row)


def row_item(path: Path, kind: Kind, row: Row) -> Item:
    """The item of a row of the file `path`; paths of images are relative to the folder of the file."""
    content = row.value
    if isinstance(content, InputError):
        return Item(_id(path, row), b"", row.size, failing(content.message))
    if kind == "texts":
        return Item(_id(path, row), content.encode("utf-8", "surrogatepass"), row.size, lambda: content)
    name = row.id or text_id(content)
    if _URL.match(content):
        return Item(name, b"", row.size, failing("it is a URL; download it, nothing is fetched"))
    return image_file(name, path.parent / content)._replace(units=row.size)


def _id(path: Path, row: Row) -> str:
    """The user's, or where the row is."""
    return row.id or text_id(f"{path}:{row.number}")


def user_id(value: Any) -> str:
    """An id of the user's, a text or an integer, as text.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
        raise InputError(f"its id is {shortened(value)}; expected a text or an integer")
    return _unicode(str(value))


def _unicode(text: str) -> str:
    """`text`, in which bytes that are not UTF-8 are surrogates.

    Raises:
        InputError: there are such.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as reason:
        raise InputError(f"it is not UTF-8 text (character {reason.start})") from None
    return text


def _lines(path: Path) -> Iterator[tuple[str | InputError, int]]:
    """Every line of `path` without its end, and its bytes; bytes that are not UTF-8 become surrogates."""
    with open_regular(path, InputError) as file:
        first = True
        while line := file.readline(MAX_LINE_BYTES + 1):
            size = len(line)
            if size > MAX_LINE_BYTES:
                while line and not line.endswith(b"\n"):
                    line = file.readline(MAX_LINE_BYTES)
                    size += len(line)
                yield InputError(f"the line has more than {MAX_LINE_BYTES} bytes"), size
            else:
                line = line.removeprefix(BYTE_ORDER_MARK) if first else line
                yield line.decode("utf-8", "surrogateescape").rstrip("\r\n"), size
            first = False


def read_lines(path: Path, kind: Kind, columns: Columns) -> Iterator[Row]:  # noqa: ARG001  (as all readers)
    """Every line that is not blank."""
    for number, (line, size) in enumerate(_lines(path), start=1):
        if isinstance(line, InputError) or line.strip():
            yield Row(number, None, _checked(line), size)


def _checked(line: str | InputError) -> str | InputError:
    try:
        return line if isinstance(line, InputError) else _unicode(line)
    except InputError as error:
        return error


def read_objects(path: Path, kind: Kind, columns: Columns) -> Iterator[Row]:
    """An object for every line that is not blank."""
    for number, (line, size) in enumerate(_lines(path), start=1):
        if isinstance(line, str) and not line.strip():
            continue
        yield _row(number, size, lambda line=line: _fields(line), kind, columns)  # type: ignore[misc]


def _fields(line: str | InputError) -> dict[str, Any]:
    if isinstance(line, InputError):
        raise line
    try:
        value = json.loads(_unicode(line))
    except (ValueError, RecursionError) as reason:
        if isinstance(reason, InputError):
            raise
        raise InputError(f"it is not valid JSON: {reason}; expected one object per line") from None
    if not isinstance(value, dict):
        raise InputError(f"expected a JSON object, got {type(value).__name__}")
    return value


def read_table(path: Path, kind: Kind, columns: Columns) -> Iterator[Row]:
    """Every row of a CSV file behind the one with the names of its columns.

    Raises:
        ConfigurationError: the first row lacks a column, or has it twice.
    """
    sizes: list[int] = []

    def lines() -> Iterator[str]:
        for line, size in _lines(path):
            sizes.append(size)
            yield "" if isinstance(line, InputError) else f"{line}\n"

    rows = csv.reader(lines(), strict=True)
    names: list[str] | None = None
    while True:
        try:
            values = next(rows)
        except StopIteration:
            return
        except csv.Error as reason:  # the reader goes on behind it
            error = InputError(f"it is not valid CSV: {reason}; check the quotes")
            yield Row(rows.line_num, None, error, sum(sizes))
            sizes.clear()
            continue
        if not values:
            continue
        if names is None:
            names = _checked_names(path, values, kind, columns)
        else:
            yield _row(rows.line_num, sum(sizes), lambda: _cells(names, values), kind, columns)  # noqa: B023
        sizes.clear()


def _checked_names(path: Path, names: list[str], kind: Kind, columns: Columns) -> list[str]:
    chosen = columns.value_of(kind, names)
    if chosen is None:
        raise ConfigurationError(f"{path}: {columns.missing((kind,), names)}")
    try:
        twice = [name for name in (chosen, columns.id_of(names)) if name is not None and names.count(name) > 1]
    except InputError as error:
        raise ConfigurationError(f"{path}: {error.message}; its columns are {shortened(names)}") from None
    if twice:
        raise ConfigurationError(f"{path} has the column {shortened(twice[0])} more than once; keep one")
    return names


def _cells(names: list[str], values: list[str]) -> dict[str, Any]:
    if len(values) != len(names):
        raise InputError(f"expected {len(names)} columns as in the first row, got {len(values)}")
    return dict(zip(names, values, strict=True))


def _row(number: int, size: int, fields: Callable[[], dict[str, Any]], kind: Kind, columns: Columns) -> Row:
    """The row of `fields`; what is wrong with it is its value, under the user's id where that can be read."""
    found: str | None = None
    try:
        values = fields()
        names = list(values)
        id_column = columns.id_of(names)
        found = user_id(values[id_column]) if id_column is not None else None
        column = columns.value_of(kind, names)
        if column is None:
            raise InputError(columns.missing((kind,), names))
        value = values[column]
        if not isinstance(value, str):
            raise InputError(f"expected a text under {column!r}, got {type(value).__name__}")
        return Row(number, found, _unicode(value), size)
    except InputError as error:
        return Row(number, found, error, size)


READERS: dict[str, Callable[[Path, Kind, Columns], Iterator[Row]]] = {
    ".txt": read_lines,
    ".jsonl": read_objects,
    ".ndjson": read_objects,
    ".csv": read_table,
}
