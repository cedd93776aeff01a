"""Versions of packages, drivers and compute capabilities, for comparisons."""

from __future__ import annotations

import re

from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import shortened

# A version as in PEP 440: 11.4.0.106, 11.0.0b1, 11.4.0.106+cuda13, 10.9.0.post12.dev1.
VERSION = re.compile(
    r"(\d{1,9}(?:\.\d{1,9})*)(?:[._-]?(dev|alpha|a|beta|b|rc|c|post)[._-]?(\d{0,9}))?(?:[.+-][A-Za-z0-9].*)?"
)
STAGES = {"dev": 0, "alpha": 1, "a": 1, "beta": 2, "b": 2, "rc": 3, "c": 3, "": 4, "post": 5}  # of a release
RELEASE = 6  # numbers of a release that are compared


def version(value: str) -> tuple[int, ...]:
    """`value` for comparisons: the numbers of the release, its stage, and the number of that.

    ``"11.0.0b1"`` is before ``"11.0.0"``, and ``"11.4.0.106+cuda13"`` equals ``"11.4.0.106"``.

    Raises:
        ConfigurationError: it is not a version.
    """
    found = VERSION.fullmatch(value)
    if found is None:
        raise ConfigurationError(f"{shortened(value)} is not a version; expected one such as '11.4.0.106'")
    numbers = [int(part) for part in found[1].split(".")][:RELEASE]
    return (*numbers, *[0] * (RELEASE - len(numbers)), STAGES[found[2] or ""], int(found[3] or 0))
