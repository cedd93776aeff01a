"""Many strings in two files, of which only what is asked for is read: ids, paths and texts of any number of rows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BYTES_SUFFIX, ENDS_SUFFIX = ".bytes", ".ends"


class StringsWriter:
    """Writes strings one after another: their bytes, and for each the place where they end (uint64)."""

    def __init__(self, stem: Path) -> None:
        self._bytes = stem.with_name(stem.name + BYTES_SUFFIX).open("wb")
        self._ends = stem.with_name(stem.name + ENDS_SUFFIX).open("wb")
        self._end = 0

    def add(self, strings: Iterable[bytes]) -> None:
        """Appends `strings`."""
        lengths = []
        for string in strings:
            self._bytes.write(string)
            lengths.append(len(string))
        ends = self._end + np.cumsum(np.array(lengths, "<u8"), dtype="<u8")
        self._ends.write(ends.tobytes())
        self._end = int(ends[-1]) if len(ends) else self._end

    def close(self) -> None:
        self._bytes.close()
        self._ends.close()


class Strings:
    """What a `StringsWriter` wrote, by number."""

    def __init__(self, stem: Path, count: int) -> None:
        self._path = stem.with_name(stem.name + BYTES_SUFFIX)
        self._ends = mapped(stem.with_name(stem.name + ENDS_SUFFIX), np.dtype("<u8"), (count,))
        self._bytes = mapped(self._path, np.dtype("u1"), (int(self._ends[-1]) if count else 0,))

    def __getitem__(self, number: int) -> bytes:
        start = int(self._ends[number - 1]) if number else 0
        return self._bytes[start : int(self._ends[number])].tobytes()


def mapped(path: Path, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> NDArray[np.generic]:
    """The file `path` as an array that is read when it is used; an empty one needs no file of any size.

    Raises:
        ValueError: the file is shorter.
    """
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", shape=shape)
