"""What every source of samples can do, whatever it is made of."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Skipped:
    """A sample that cannot be used, and why; both without paths of the machine."""

    name: str
    reason: str


@dataclass(frozen=True)
class Candidate:
    """A sample that could be chosen.

    Attributes:
        name: says which one it is inside its source.
        identity: what decides whether it is chosen; of those that share one, the first counts.
    """

    name: str
    identity: bytes


class Source(Protocol):
    """A folder, list or archive of images, or a file of captions.

    All of it may raise ConfigurationError: the source itself cannot be read or is not what it has to be.

    Attributes:
        name: of the folder or file, without the way there.
    """

    @property
    def name(self) -> str: ...

    def candidates(self) -> Iterator[Candidate]:
        """All samples, in any order."""
        ...

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes | Skipped]]:
        """Names and contents of the samples that are called so, in the order that suits the source, always the same;
        one that is not there may be left out."""
        ...


def identity(text: str) -> bytes:
    """`text` as bytes, lone surrogates included: names of files may hold any bytes, and JSON can spell them."""
    return text.encode("utf-8", "surrogatepass")
