"""The samples that an export takes of one source: named by their contents, read again when they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from align_calibration.dataset.choice import choose
from align_calibration.dataset.source import Skipped, Source
from align_runtime.errors import BuildError, ConfigurationError, InputError

MAX_SKIPPED = 0.1  # of what was chosen: a source with more is not what it was taken for


@dataclass(frozen=True)
class Sample:
    """A sample that is used: its name inside its source, and the sha256 of its content in hexadecimal."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Selection:
    """What was chosen of a source.

    Attributes:
        source: what it was chosen of.
        found: number of samples in the source.
        used: in the order in which `contents` reads them.
        skipped: what was chosen and cannot be used.
    """

    source: Source
    found: int
    used: tuple[Sample, ...]
    skipped: tuple[Skipped, ...]

    def contents(self) -> Iterator[tuple[Sample, bytes]]:
        """Reads what is used, one after the other.

        Raises:
            BuildError: a sample is not what it was when it was chosen.
        """
        left = {sample.name: sample for sample in self.used}
        for name, content in self.source.read(left.keys()):
            sample = left.pop(name)
            if isinstance(content, Skipped) or _sha256(content) != sample.sha256:
                raise self._changed(name)
            yield sample, content
        if left:
            raise self._changed(min(left))

    def _changed(self, name: str) -> BuildError:
        return BuildError(
            f"{self.source.name}: {name!r} changed while the export was running; start it again when the samples stay "
            "as they are"
        )

    def usable(self, contents: Iterable[tuple[Sample, bytes]], attempt: Callable[[bytes], object]) -> Selection:
        """The same without the samples of `contents` that `attempt` refuses with an InputError.

        Raises:
            ConfigurationError: too many are refused.
        """
        refused = []
        for sample, content in contents:
            try:
                attempt(content)
            except InputError as error:
                refused.append(Skipped(sample.name, error.message))
        names = {entry.name for entry in refused}
        used = tuple(sample for sample in self.used if sample.name not in names)
        return _checked(replace(self, used=used, skipped=(*self.skipped, *refused)))

    def to_json(self) -> dict[str, Any]:
        """What a bundle records of it: no data, and nothing of samples that were not chosen."""
        return {
            "source": self.source.name,
            "used": [asdict(sample) for sample in self.used],
            "skipped": [asdict(entry) for entry in self.skipped],
        }


def select(source: Source, limit: int, seed: int) -> Selection:
    """Chooses at most `limit` samples of `source` and reads them once.

    Raises:
        ConfigurationError: there are none, or too many of them cannot be read.
    """
    names, found = choose(source.candidates(), limit, seed)
    if not names:
        raise ConfigurationError(f"{source.name} holds no samples; name one that does")
    used, skipped = [], []
    for name, content in source.read(frozenset(names)):
        if isinstance(content, Skipped):
            skipped.append(content)
        else:
            used.append(Sample(name, _sha256(content)))
    return _checked(Selection(source, found, tuple(used), tuple(skipped)))


def _checked(selection: Selection) -> Selection:
    bad, chosen = len(selection.skipped), len(selection.skipped) + len(selection.used)
    if bad > MAX_SKIPPED * chosen:
        first = selection.skipped[0]
        raise ConfigurationError(
            f"{selection.source.name}: {bad} of {chosen} samples cannot be used, at most {MAX_SKIPPED:.0%} may be so; "
            f"the first is {first.name!r}: {first.reason}"
        )
    return selection


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
