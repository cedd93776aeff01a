"""BMP: its size, and a bound for run lengths, which Pillow decodes in Python."""

from __future__ import annotations

from align_runtime.containers.stripped import Stripped, no_header
from align_runtime.errors import InputError

RUN_LENGTHS = (1, 2)  # codes of the compressions
MAX_RUN_LENGTH_WORK = 1 << 22  # pixels and bytes together


def strip(data: bytes) -> Stripped:
    """The BMP file `data`, as it is.

    Raises:
        InputError: it has no header, or is run-length encoded and large.
    """
    if len(data) < 26:
        raise no_header("BMP")

    def number(start: int, count: int) -> int:
        return int.from_bytes(data[start : start + count], "little")

    if number(14, 4) == 12:  # the header of OS/2
        return Stripped(data, (number(18, 2), number(20, 2)))
    height = number(22, 4)
    size = number(18, 4), 2**32 - height if data[25] == 0xFF else height  # negative: from top to bottom
    if number(30, 4) in RUN_LENGTHS and size[0] * size[1] + len(data) > MAX_RUN_LENGTH_WORK:
        raise InputError(
            f"is a run-length encoded BMP of {size[0]} × {size[1]} pixels and {len(data)} bytes; expected at most "
            f"{MAX_RUN_LENGTH_WORK} of both together; save it in another format"
        )
    return Stripped(data, size)
