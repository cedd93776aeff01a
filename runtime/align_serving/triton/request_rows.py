"""The rows of the requests of one batch: put together, embedded, and divided among the requests again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from align_runtime.embedded_rows import EmbeddedRows, OnError
from align_runtime.errors import InputError
from align_runtime.foreign_text import shortened

ON_ERROR = "on_error"


@dataclass(frozen=True, eq=False)
class Answer:
    """The rows of one request: float32 (n, dim), zeros where `reasons`, n texts, is not empty."""

    embeddings: NDArray[np.float32]
    reasons: tuple[str, ...]


def on_error_of(parameters: str) -> OnError | InputError:
    """``on_error`` of the parameters of a request, a JSON object; what is wrong with them otherwise."""
    given = json.loads(parameters or "{}").get(ON_ERROR, "raise")
    if given in get_args(OnError):
        return given
    return InputError(f"the parameter {ON_ERROR} is {shortened(given)}; expected 'raise' or 'skip'")


def texts_of(values: Sequence[bytes]) -> list[str | InputError]:
    """Each of `values` as text, or why it is none."""
    return [_text(value, index) for index, value in enumerate(values)]


def _text(value: bytes, index: int) -> str | InputError:
    try:
        return value.decode()
    except UnicodeDecodeError as reason:
        return InputError(f"the text is not UTF-8 ({reason.reason} at byte {reason.start}); encode it as UTF-8", index)


def usable_rows(values: Sequence[str | InputError], embed: Callable[[list[str]], EmbeddedRows]) -> EmbeddedRows:
    """What `embed` answers for those of `values` that are no errors, at their places, with the errors of all."""
    places = np.array([index for index, value in enumerate(values) if not isinstance(value, InputError)], np.int64)
    rows = embed([value for value in values if not isinstance(value, InputError)])
    errors = [value for value in values if isinstance(value, InputError)]
    errors += [error.at(int(places[error.index or 0])) for error in rows.errors]
    return EmbeddedRows(places[rows.indices], rows.embeddings, tuple(errors))


def answers(
    rows: EmbeddedRows, sizes: Sequence[int], on_error: Sequence[OnError | InputError], dim: int
) -> Iterator[Answer | InputError]:
    """Yields the rows of each request, or its first error unless it skips them; positions are those in the request.

    Args:
        rows: of all requests, one after the other.
        sizes: number of rows of each request.
        on_error: what each wants.
    """
    embeddings = np.zeros((sum(sizes), dim), np.float32)
    embeddings[rows.indices] = rows.embeddings
    errors = {error.index or 0: error for error in rows.errors}
    for end, size, choice in zip(accumulate(sizes), sizes, on_error, strict=True):
        own = {index - end + size: errors[index] for index in range(end - size, end) if index in errors}
        if isinstance(choice, InputError):
            yield choice
        elif own and choice == "raise":
            first = min(own)
            yield own[first].at(first)
        else:
            reasons = tuple(own[index].message if index in own else "" for index in range(size))
            yield Answer(embeddings[end - size : end], reasons)
