"""Rows of Parquet files: a column of texts, of encoded images, or of paths of images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO

from align_runtime.errors import ConfigurationError, InputError
from align_runtime.foreign_text import shortened
from align_serving.embed.arrow import import_pyarrow
from align_serving.embed.items import Item, Kind, ParquetPlace, failing, file_identity, text_id
from align_serving.embed.rows import Columns, Row, row_item, user_id

BATCH_ROWS = {"texts": 4096, "bytes": 32}  # images of a batch are in memory at once
BUFFER_BYTES = 1 << 20  # a column of a row group is read in pieces
MAX_GROUP_BYTES = 1 << 28  # of a column in a row group that is read for one image
NULL = InputError("the value is null")


@dataclass(frozen=True)
class ParquetRows:
    """The rows of the Parquet file `path`.

    A column of strings holds texts, or paths if images are asked for. A column of binary values, or of structures with
    a field ``bytes`` as the datasets of Hugging Face have it, holds encoded images. Rows without an id of the user's
    are called by the path beside the bytes, or ``FILE:NUMBER``.

    Attributes:
        wanted: the kind of items that the user asks for; None where the column decides.
        max_bytes: of an encoded image.
    """

    path: Path
    wanted: Kind | None
    columns: Columns
    max_bytes: int

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def kind(self) -> Kind:
        return self._chosen[0]

    @property
    def in_files(self) -> bool:
        return self._chosen[0] == "images" and self._chosen[2] == "strings"

    @property
    def units(self) -> int:
        return self.path.stat().st_size

    def describe(self) -> dict[str, Any]:
        return {"parquet": text_id(self.name), "bytes": self.units, "column": self._chosen[1]}

    def items(self) -> Iterator[Item]:
        kind, column, holds = self._chosen
        id_column, whole = self._id_column, file_identity(self.path)
        names = list(dict.fromkeys([column, id_column or column]))
        rows = BATCH_ROWS["texts" if holds == "strings" else "bytes"]
        number = 0
        with self._open() as file:
            units = self.units // max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(rows, columns=names, use_threads=False):
                values = batch.column(column)
                ids = None if id_column is None else batch.column(id_column)
                for index in range(batch.num_rows):
                    number += 1
                    row = Row(number, None, "", units)
                    if ids is not None:
                        try:
                            row = row._replace(id=user_id(ids[index].as_py()))
                        except InputError as error:
                            row = row._replace(value=error)
                    if holds == "strings":
                        yield self._text(kind, row, values[index].as_py())
                    else:
                        yield self._image(row, values[index], whole)

    def _text(self, kind: Kind, row: Row, text: str | None) -> Item:
        if row.value == "":
            row = row._replace(value=NULL if text is None else text)
        return row_item(self.path, kind, row)

    def _image(self, row: Row, value: Any, whole: bytes) -> Item:
        """Of binary values, or of ``{"bytes": …, "path": …}``; any of them may be null."""
        beside = value["path"].as_py() if value.is_valid and hasattr(value, "keys") and "path" in value else None
        name = row.id or text_id(beside if isinstance(beside, str) else f"{self.path}:{row.number}")
        load = (
            failing(row.value.message)
            if isinstance(row.value, InputError)
            else partial(_content, value, self.max_bytes)
        )
        place = ParquetPlace(self._chosen[1], row.number - 1)
        return Item(name, whole + b" %d" % row.number, row.size, load, lambda: place)

    @cached_property
    def _types(self) -> dict[str, Any]:
        """The type of each column."""
        with self._open(ConfigurationError) as file:
            return {field.name: field.type for field in file.schema_arrow}

    @cached_property
    def _chosen(self) -> tuple[Kind, str, str]:
        """The kind of the items, their column, and what it holds, see `_holds`."""
        kinds: tuple[Kind, ...] = ("texts", "images") if self.wanted is None else (self.wanted,)
        found = [(kind, name) for kind in kinds if (name := self.columns.value_of(kind, list(self._types)))]
        if not found:
            raise ConfigurationError(f"{self.path}: {self.columns.missing(kinds, list(self._types))}")
        kind, column = found[0]
        holds = _holds(self._types[column])
        if holds is None or (self.wanted == "texts" and holds != "strings"):
            expected = "strings" if self.wanted == "texts" else "strings, binary values, or structures with 'bytes'"
            raise ConfigurationError(
                f"{self.path}: the column {column!r} has the type {self._types[column]}; expected {expected}; name "
                "another with --column"
            )
        return kind if holds == "strings" else "images", column, holds

    @property
    def _id_column(self) -> str | None:
        try:
            return self.columns.id_of(list(self._types))
        except InputError as error:
            raise ConfigurationError(
                f"{self.path}: {error.message}; its columns are {shortened(list(self._types))}"
            ) from None

    @contextmanager
    def _open(self, error: type[InputError] | type[ConfigurationError] = InputError) -> Iterator[Any]:
        """The file; what pyarrow raises while it is open becomes `error`."""
        arrow, parquet = import_pyarrow()
        try:
            with parquet.ParquetFile(self.path, buffer_size=BUFFER_BYTES, pre_buffer=False) as file:
                yield file
        except (arrow.ArrowException, OSError) as reason:
            raise error(f"cannot read the Parquet file {self.path}: {reason}; write it again") from reason


def read_image(file: BinaryIO, place: ParquetPlace, max_bytes: int) -> bytes:
    """The encoded image at `place` of the Parquet file `file`, whose row group is read up to it, batch by batch.

    Raises:
        InputError: it cannot be read, has more than `max_bytes` bytes, or the row group more than `MAX_GROUP_BYTES`.
    """
    arrow, parquet = import_pyarrow()
    try:
        with parquet.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False) as opened:
            row, group = place.row, 0
            while row >= (rows := opened.metadata.row_group(group).num_rows):
                row, group = row - rows, group + 1
            chunks = map(opened.metadata.row_group(group).column, range(opened.metadata.num_columns))
            size = sum(
                chunk.total_uncompressed_size
                for chunk in chunks
                if f"{chunk.path_in_schema}.".startswith(f"{place.column}.")
            )
            if size > MAX_GROUP_BYTES:
                raise InputError(
                    f"its row group has {size} bytes; an image is read from one of at most {MAX_GROUP_BYTES}"
                )
            names, batch_rows = [place.column], BATCH_ROWS["bytes"]
            for batch in opened.iter_batches(batch_rows, row_groups=[group], columns=names, use_threads=False):
                if row < batch.num_rows:
                    return _content(batch.column(place.column)[row], max_bytes)
                row -= batch.num_rows
    except (arrow.ArrowException, OSError, IndexError, KeyError) as reason:
        raise InputError("the Parquet file cannot be read") from reason
    raise InputError(f"the Parquet file has no row {place.row + 1}")


def _content(value: Any, max_bytes: int) -> bytes:
    """Of a binary value, or of a structure that holds one."""
    if value.is_valid and hasattr(value, "keys"):
        value = value["bytes"]
    if not value.is_valid:
        raise NULL
    if (size := value.as_buffer().size) > max_bytes:
        raise InputError(f"it has {size} bytes; expected at most {max_bytes}")
    return bytes(value.as_py())


def _holds(kind: Any) -> str | None:
    """What a column of Arrow's type `kind` holds; None for what is never embedded."""
    arrow, _ = import_pyarrow()
    types = arrow.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_string(kind) or types.is_large_string(kind):
        return "strings"
    if types.is_binary(kind) or types.is_large_binary(kind):
        return "binary"
    if types.is_struct(kind) and any(field.name == "bytes" and _holds(field.type) == "binary" for field in kind):
        return "structures"
    return None
