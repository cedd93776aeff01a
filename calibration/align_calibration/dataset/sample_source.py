"""What all sources of samples share: their interface, the names of samples, and lines of text files."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from align_runtime.errors import ConfigurationError
from align_runtime.regular_files import open_regular

MAX_LINE_BYTES = 8 << 20  # twice the size of the longest text that the tokenizer accepts
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Skipped:
    """A sample that cannot be used, and the reason; neither contains a path of this machine."""

    name: str
    reason: str


@dataclass(frozen=True)
class Candidate:
    """A sample that may be drawn.

    Attributes:
        name: identifies it inside its source.
        identity: bytes that the draw depends on; of candidates with equal bytes only the first is drawn.
    """

    name: str
    identity: bytes


class SampleSource(Protocol):
    """A folder, list or archive of images, or a file of captions.

    All members may raise ConfigurationError: the source cannot be read or is malformed.

    Attributes:
        name: of the folder or file, without its path.
    """

    @property
    def name(self) -> str: ...

    def candidates(self) -> Iterator[Candidate]:
        """All samples, in any order."""
        ...

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes | Skipped]]:
        """Names and contents of the samples `names`, always in the same order, the fastest one for the source.

        Missing samples may be left out.
        """
        ...


def encode(text: str) -> bytes:
    """`text` in UTF-8, lone surrogates included: file names may hold any bytes, and JSON can encode surrogates."""
    return text.encode("utf-8", "surrogatepass")


def decode(content: bytes) -> str:
    """Inverse of `encode`."""
    return content.decode("utf-8", "surrogatepass")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of every line of the UTF-8 file `path`, with the line ending.

    Raises:
        ConfigurationError: the file cannot be read, is not UTF-8, or has a line of more than `MAX_LINE_BYTES`.
    """
    with open_regular(path, ConfigurationError) as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise ConfigurationError(
                    f"{path}, line {number} has more than {MAX_LINE_BYTES} bytes; pass a text file"
                )
            yield number, _decode_line(path, number, line)


def _decode_line(path: Path, number: int, line: bytes) -> str:
    try:
        return (line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line).decode("utf-8")
    except UnicodeDecodeError as reason:
        raise ConfigurationError(
            f"{path}, line {number} is not UTF-8 text (byte {reason.start}); save the file as UTF-8"
        ) from None
