"""The vectors in tests/vectors are what the Python runtime gives; runtime/cpp/tests holds the C++ runtime to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vectors import make


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return make.expected()


@pytest.mark.parametrize("name", ["texts.json", "tokenizer_variants.json", "images.json", "pixels.json"])
def test_the_python_runtime_gives_the_vectors(name: str, expected: dict[str, Any]) -> None:
    assert json.loads((make.FOLDER / name).read_text(encoding="utf-8")) == expected[name]


def test_the_python_runtime_gives_the_embeddings(tiny_bundle: Path) -> None:
    """Within 1e-6: processors differ in the order of their sums."""
    given, found = json.loads((make.FOLDER / "embeddings.json").read_text()), make.embeddings(tiny_bundle)
    for inputs, key in (("texts", "text"), ("images", "file")):
        assert [row[key] for row in given[inputs]] == [row[key] for row in found[inputs]]
        rows, ours = (np.array([row["row"] for row in source[inputs]]) for source in (given, found))
        np.testing.assert_allclose(ours, rows, rtol=0, atol=1e-6)


def test_the_tokenizer_is_the_one_that_is_written() -> None:
    content = json.loads((make.FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    assert content == make.description().to_json()


def test_the_vectors_say_something(expected: dict[str, Any]) -> None:
    rows = expected["texts.json"]["texts"]
    assert {len(row["ids"]) for row in rows} == set(range(2, make.MAX_LENGTH + 1))
    assert {row["accepted"] for row in expected["tokenizer_variants.json"]} == {True, False}
    assert {"error" in row for row in expected["images.json"]} == {True, False}
