"""Selection of samples from one source: drawn by a seed, identified by hashes, read again for each use."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from align_calibration.dataset.sample_source import Candidate, SampleSource, Skipped
from align_runtime.errors import BuildError, ConfigurationError, InputError

MAX_SKIPPED = 0.1  # of the drawn samples; with more, the source is probably not what the user meant
SHOWN_CHARACTERS = 100  # of a name in a message


@dataclass(frozen=True)
class Sample:
    """A selected sample: its name inside its source, and the sha256 of its content in hexadecimal."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Selection:
    """The samples drawn from a source.

    Attributes:
        source: where they were drawn from.
        available: number of samples in the source.
        samples: those that can be used, in the order in which `contents` reads them.
        skipped: those that cannot be used.
    """

    source: SampleSource
    available: int
    samples: tuple[Sample, ...]
    skipped: tuple[Skipped, ...]

    def contents(self) -> Iterator[tuple[Sample, bytes]]:
        """Reads the samples, one after the other.

        Raises:
            BuildError: a sample changed or disappeared since it was selected.
        """
        left = {sample.name: sample for sample in self.samples}
        for name, content in self.source.read(left.keys()):
            sample = left.pop(name)
            if isinstance(content, Skipped) or _sha256(content) != sample.sha256:
                raise self._changed(name)
            yield sample, content
        if left:
            raise self._changed(min(left))

    def decodable(self, contents: Iterable[tuple[Sample, bytes]], decode: Callable[[bytes], object]) -> Selection:
        """The same selection, where samples of `contents` for which `decode` raises InputError are skipped.

        Raises:
            ConfigurationError: more than `MAX_SKIPPED` of the samples are skipped.
        """
        failed = []
        for sample, content in contents:
            try:
                decode(content)
            except InputError as error:
                failed.append(Skipped(sample.name, error.message))
        names = {entry.name for entry in failed}
        samples = tuple(sample for sample in self.samples if sample.name not in names)
        return _checked(replace(self, samples=samples, skipped=(*self.skipped, *failed)))

    def to_json(self) -> dict[str, Any]:
        """What a bundle records: names and hashes, no data, and nothing about samples that were not drawn."""
        return {
            "source": self.source.name,
            "samples": [asdict(sample) for sample in self.samples],
            "skipped": [asdict(entry) for entry in self.skipped],
        }

    def _changed(self, name: str) -> BuildError:
        return BuildError(
            f"{self.source.name}: sample {_shown(name)} changed during the export; export again while the dataset "
            "does not change"
        )


def select_samples(source: SampleSource, limit: int, seed: int) -> Selection:
    """Draws at most `limit` samples from `source` and reads them once.

    Raises:
        ConfigurationError: there are none, or more than `MAX_SKIPPED` of them cannot be read.
    """
    names, available = draw(source.candidates(), limit, seed)
    if not names:
        raise ConfigurationError(f"{source.name} contains no samples; pass a source with images or captions")
    samples, skipped = [], []
    for name, content in source.read(frozenset(names)):
        if isinstance(content, Skipped):
            skipped.append(content)
        else:
            samples.append(Sample(name, _sha256(content)))
    return _checked(Selection(source, available, tuple(samples), tuple(skipped)))


def draw(candidates: Iterable[Candidate], limit: int, seed: int) -> tuple[list[str], int]:
    """Draws `limit` of `candidates`, or all if there are fewer, each identity once.

    The draw depends on the identities and the seed, not on their order. Memory is proportional to `limit`. When a
    source grows, drawn samples stay drawn unless a new one displaces them.

    Returns:
        The names of the drawn samples, and the number of candidates.
    """
    drawn: dict[int, str] = {}
    largest: list[int] = []  # the keys of `drawn`, negated: the largest key is the first of the heap
    available = 0
    for candidate in candidates:
        available += 1
        key = int.from_bytes(hashlib.sha256(f"{seed}:".encode() + candidate.identity).digest())
        if key in drawn or (len(drawn) == limit and key > -largest[0]):
            continue
        drawn[key] = candidate.name
        heapq.heappush(largest, -key)
        if len(drawn) > limit:
            del drawn[-heapq.heappop(largest)]
    return list(drawn.values()), available


def _checked(selection: Selection) -> Selection:
    """Returns `selection` unless more than `MAX_SKIPPED` of it are skipped."""
    skipped, drawn = len(selection.skipped), len(selection.skipped) + len(selection.samples)
    if skipped > MAX_SKIPPED * drawn:
        first = selection.skipped[0]
        raise ConfigurationError(
            f"{selection.source.name}: {skipped} of {drawn} samples cannot be used (limit {MAX_SKIPPED:.0%}); the "
            f"first is {_shown(first.name)}: {first.reason}; remove them or pass another source"
        )
    return selection


def _shown(name: str) -> str:
    return repr(name if len(name) <= SHOWN_CHARACTERS else f"{name[:SHOWN_CHARACTERS]}…")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
