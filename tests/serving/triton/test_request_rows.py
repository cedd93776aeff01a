"""Rows of the requests of one batch: put together and divided again."""

from __future__ import annotations

import numpy as np
import pytest

from align_runtime import EmbeddedRows, InputError
from align_serving.triton.request_rows import Answer, answers, on_error_of, texts_of, usable_rows


def embedded(texts: list[str]) -> EmbeddedRows:
    """The length of each text as its embedding; an empty one is an error."""
    good = [index for index, text in enumerate(texts) if text]
    errors = tuple(InputError("empty", index) for index, text in enumerate(texts) if not text)
    return EmbeddedRows(
        np.array(good, np.int64), np.array([[len(texts[index])] for index in good], np.float32).reshape(-1, 1), errors
    )


def test_errors_of_both_kinds_keep_their_places() -> None:
    rows = usable_rows(texts_of([b"\xff", b"abc", b"", "é".encode(), b"\xc3"]), embedded)
    assert rows.indices.tolist() == [1, 3]
    assert rows.embeddings.tolist() == [[3], [1]]
    assert sorted((error.index, error.message[:20]) for error in rows.errors) == [
        (0, "the text is not UTF-"),
        (2, "empty"),
        (4, "the text is not UTF-"),
    ]


def test_each_request_gets_its_rows_or_its_first_error() -> None:
    rows = usable_rows(["a", "bb", InputError("bad", 2), "cccc", InputError("worse", 4), "f"], embedded)
    first, second, third, fourth = answers(rows, [2, 3, 0, 1], ["raise", "raise", "skip", "skip"], 1)
    assert isinstance(first, Answer)
    assert (first.embeddings.tolist(), first.reasons) == ([[1], [2]], ("", ""))
    assert isinstance(second, InputError)
    assert (second.index, second.message) == (0, "bad")
    assert isinstance(third, Answer)
    assert third.embeddings.shape == (0, 1)
    assert isinstance(fourth, Answer)
    assert fourth.embeddings.tolist() == [[1]]


def test_skipped_rows_are_zeros_with_their_reason() -> None:
    rows = usable_rows(["a", InputError("bad", 1), ""], embedded)
    (answer,) = answers(rows, [3], ["skip"], 1)
    assert isinstance(answer, Answer)
    assert (answer.embeddings.tolist(), answer.reasons) == ([[1], [0], [0]], ("", "bad", "empty"))


@pytest.mark.parametrize(("parameters", "expected"), [("", "raise"), ("{}", "raise"), ('{"on_error": "skip"}', "skip")])
def test_parameters(parameters: str, expected: str) -> None:
    assert on_error_of(parameters) == expected


def test_an_unknown_parameter_fails_its_request() -> None:
    wrong = on_error_of('{"on_error": 1}')
    assert isinstance(wrong, InputError)
    found = list(answers(usable_rows(["a", "b"], embedded), [1, 1], [wrong, "raise"], 1))
    assert found[0] is wrong
    assert isinstance(found[1], Answer)
