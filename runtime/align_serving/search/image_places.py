"""Where the image of a row lies: in a file of its own, or at a place in an archive or a Parquet file."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from align_runtime.archives.extents import Extent, read_extent
from align_runtime.errors import InputError
from align_runtime.regular_files import open_regular, read_regular
from align_serving.embed.items import ParquetPlace, Place, status_identity
from align_serving.embed.parquet_rows import read_image

SEPARATOR = b"\0"  # which no path has


@dataclass(frozen=True)
class ImagePlace:
    """An image that can be read.

    Attributes:
        path: of the file, absolute and without links.
        place: in the file; None where the image is all of it.
        identity: of a file with a place in it, see `file_identity`.
    """

    path: str
    place: Place | None = None
    identity: str = ""

    def to_bytes(self) -> bytes:
        path = os.fsencode(self.path)
        if self.place is None:
            return path
        return path + SEPARATOR + json.dumps(asdict(self.place) | {"identity": self.identity}).encode()

    @classmethod
    def from_bytes(cls, stored: bytes) -> ImagePlace:
        """What `to_bytes` gave."""
        path, separator, rest = stored.partition(SEPARATOR)
        if not separator:
            return cls(os.fsdecode(path))
        values = json.loads(rest)
        identity = values.pop("identity")
        return cls(os.fsdecode(path), ParquetPlace(**values) if "row" in values else Extent(**values), identity)

    def read(self, max_bytes: int) -> bytes:
        """The encoded image.

        Raises:
            InputError: it has more than `max_bytes` bytes, or is no longer as it was when the index was built. No
                message names a path.
        """
        path, what = Path(self.path), "the image" if self.place is None else "the file that holds the image"
        if os.path.realpath(path) != self.path:
            raise InputError(f"the path of {what} is a link by now; links are not followed")
        if not path.exists():
            raise InputError(f"{what} is no longer there")
        if self.place is None:
            return read_regular(path, max_bytes, InputError, what)
        with open_regular(path, InputError, what) as file:
            if status_identity(os.fstat(file.fileno())).decode() != self.identity:
                raise InputError(f"{what} was changed after the index was built; build it anew with align-search index")
            if isinstance(self.place, Extent):
                return read_extent(file, self.place, max_bytes)
            return read_image(file, self.place, max_bytes)
