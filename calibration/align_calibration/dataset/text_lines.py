"""Lines of a UTF-8 text file, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from align_runtime.errors import ConfigurationError

MAX_LINE_BYTES = 8 << 20  # twice what the longest text takes that the tokenizer accepts
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number, from 1 on, and text of every line of `path`, the end of the line included.

    Raises:
        ConfigurationError: the file cannot be read, is not UTF-8, or holds a line of more than `MAX_LINE_BYTES`.
    """
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise ConfigurationError(
                        f"{path}, line {number} has more than {MAX_LINE_BYTES} bytes; is it really a text file?"
                    )
                yield number, _decode(path, number, line)
    except OSError as reason:
        raise ConfigurationError(f"{path} cannot be read: {reason.strerror}") from None


def _decode(path: Path, number: int, line: bytes) -> str:
    try:
        return (line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line).decode("utf-8")
    except UnicodeDecodeError as reason:
        raise ConfigurationError(
            f"{path}, line {number} is not UTF-8 text (byte {reason.start}); save the file as UTF-8"
        ) from None
