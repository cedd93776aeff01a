"""Versions of TensorRT, drivers and compute capabilities, in the forms that packages have."""

from __future__ import annotations

import pytest

from align_runtime.errors import ConfigurationError
from align_runtime.versions import version

ASCENDING = [
    "7.5",
    "10.9.0.34",
    "10.16.1.11",
    "11.0.0.dev3",
    "11.0.0a1",
    "11.0.0b1",
    "11.0.0b2",
    "11.0.0rc1",
    "11.0.0",
    "11.0.0.post1",
    "11.4.0.106",
    "11.10",
]


def test_versions_are_ordered() -> None:
    keys = [version(text) for text in ASCENDING]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)
    assert version("8.6") >= (8, 0) > version("7.5")
    assert version("11.0.0b1")[0] == 11


@pytest.mark.parametrize(
    ("left", "right"),
    [("11.4.0.106+cuda13", "11.4.0.106"), ("11.4", "11.4.0"), ("11.0.0b1", "11.0.0.beta1"), ("13.0", "13")],
)
def test_versions_that_are_equal(left: str, right: str) -> None:
    assert version(left) == version(right)


@pytest.mark.parametrize("text", ["", "nine", "v11", "11.", "11..0", "-1", "11.4\n", "1" * 5000])
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a version; expected one such as '11.4.0.106'"):
        version(text)
