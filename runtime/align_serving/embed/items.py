"""The items of a job: what is embedded, under which id, and by what a changed input is noticed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from align_runtime.archives.extents import Extent
from align_runtime.errors import DeviceError, InputError

Kind = Literal["images", "texts"]
Content = Path | bytes | str  # an image in a file, an encoded image, a text
DIGEST_BYTES = 16


@dataclass(frozen=True)
class ParquetPlace:
    """A value in a Parquet file: its column, and its row from 0."""

    column: str
    row: int


Place = Extent | ParquetPlace  # of an image in the file of its source


class Item(NamedTuple):
    """An image or a text that is to be embedded. A tuple takes a third of the time of a dataclass to make.

    Attributes:
        id: what its row is called.
        identity: bytes that differ where the content does: a text itself, size and time of change of a file.
        units: its share of `Source.units`, for the time left.
        load: gives the content; called at most once, before the next item is asked for. Raises InputError.
        place: gives the place of an image in the file of its source, None where it has a file of its own. Called
            before the next item is asked for. Raises InputError where it cannot be read alone.
    """

    id: str
    identity: bytes
    units: int
    load: Callable[[], Content]
    place: Callable[[], Place | None] = lambda: None


class Source(Protocol):
    """An input of the job.

    Attributes:
        name: as the user wrote it.
        kind: of its items.
        in_files: whether every item is a file of its own, which any thread can read.
        units: about as many bytes as there are to read.
    """

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> Kind: ...

    @property
    def in_files(self) -> bool: ...

    @property
    def units(self) -> int: ...

    def describe(self) -> dict[str, Any]:
        """What the ledger keeps of it, in JSON values: another description is another input."""
        ...

    def items(self) -> Iterator[Item]:
        """All items, always in the same order.

        Raises:
            InputError: the rest of the input cannot be read.
            ConfigurationError: the input is not what the options say.
        """
        ...


def all_items(sources: list[Source]) -> Iterator[Item]:
    """The items of all `sources`. One that cannot be read further ends with an item that says so.

    Raises:
        ConfigurationError: as in `Source.items`.
        DeviceError: the storage failed, which may be different the next time.
    """
    for source in sources:
        try:
            yield from source.items()
        except InputError as error:
            check_storage(source.name, error.__cause__)
            yield Item(text_id(source.name), b"", 0, failing(error.message))


def check_storage(name: str, cause: BaseException | None) -> None:
    """Raises DeviceError if the system could not read the source `name`: the next time it may."""
    if isinstance(cause, OSError) and cause.errno is not None:
        raise DeviceError(f"{name} cannot be read further: {cause.strerror or cause}; check its storage") from None


def failing(reason: str) -> Callable[[], Content]:
    """The `load` of an item that has no content."""

    def load() -> Content:
        raise InputError(reason)

    return load


def file_identity(path: Path) -> bytes:
    """Size and time of change of a file; empty where it does not exist."""
    try:
        return status_identity(os.stat(path))  # noqa: PTH116  (half the time of Path.stat)
    except (OSError, ValueError):  # ValueError: a NUL character
        return b""


def status_identity(status: os.stat_result) -> bytes:
    """See `file_identity`."""
    return b"%d %d" % (status.st_size, status.st_mtime_ns)


def text_id(name: str) -> str:
    """`name` as an id, which is valid UTF-8: bytes of a file name that are not become ``\\xff``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") if not name.isascii() else name


class ItemsDigest:
    """A digest of ids and identities, in order."""

    def __init__(self) -> None:
        self._digest = hashlib.blake2b(digest_size=DIGEST_BYTES)

    def add(self, item: Item) -> None:
        for part in (item.id.encode("utf-8", "surrogatepass"), item.identity):
            self._digest.update(len(part).to_bytes(8, "little") + part)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()
