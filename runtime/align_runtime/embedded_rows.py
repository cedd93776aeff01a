"""What embedding returns for a part of its inputs, and what becomes of an input that cannot be used."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from align_runtime.errors import ConfigurationError, InputError
from align_runtime.foreign_text import shortened
from align_runtime.scheduling import Source

OnError = Literal["raise", "skip"]


@dataclass(frozen=True, eq=False)
class EmbeddedRows:
    """Embeddings, the inputs that they belong to, and the inputs that have none.

    Attributes:
        indices: int64 (n,), the position in the input of each row, ascending.
        embeddings: float32 (n, dim), unit rows.
        errors: of the inputs that could not be used, whose positions are their `index`, ascending; empty with
            ``on_error="raise"``.
    """

    indices: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    errors: tuple[InputError, ...] = ()

    def __repr__(self) -> str:
        n, dim = self.embeddings.shape
        return f"<align_runtime.EmbeddedRows {n} × {dim}, {len(self.errors)} errors>"

    @classmethod
    def joined(cls, parts: Iterable[EmbeddedRows], dim: int) -> EmbeddedRows:
        """All of `parts` as one; `dim` is the width where there are none."""
        listed = [cls(np.empty(0, np.int64), np.empty((0, dim), np.float32)), *parts]
        return cls(
            np.concatenate([part.indices for part in listed]),
            np.concatenate([part.embeddings for part in listed]),
            tuple(error for part in listed for error in part.errors),
        )


def check_inputs(values: object, word: str, is_one: bool) -> None:
    """Raises InputError unless `values` has items; `is_one` says that it is one input itself, which `word` calls it."""
    # An array without dimensions says that it has items, but has none.
    if is_one or not isinstance(values, Iterable) or (isinstance(values, np.ndarray) and values.ndim == 0):
        kind = type(values).__name__
        raise InputError(f"expected a list of {word}s, got {kind}; put one {word} into a list")


def check_on_error(on_error: str) -> None:
    """Raises ConfigurationError unless `on_error` is one of `OnError`."""
    if not isinstance(on_error, str) or on_error not in get_args(OnError):
        raise ConfigurationError(f"on_error is {shortened(on_error)}; expected 'raise' or 'skip'")


def usable(inputs: Sequence[tuple[int, Any]], on_error: OnError) -> tuple[list[int], list[Any], tuple[InputError, ...]]:
    """Indices and values of `inputs` that are no InputError, and the errors; with ``"raise"`` up to the first error."""
    failed = [place for place, (_, value) in enumerate(inputs) if isinstance(value, InputError)]
    if failed and on_error == "raise":
        inputs, failed = inputs[: failed[0] + 1], failed[:1]
    good = [(index, value) for index, value in inputs if not isinstance(value, InputError)]
    return [index for index, _ in good], [value for _, value in good], tuple(inputs[place][1] for place in failed)


def delivered(
    parts: Generator[EmbeddedRows, None, None], source: Source[Any], on_error: OnError
) -> Generator[EmbeddedRows, None, None]:
    """Yields `parts`. An error, of an input or of `source`, is raised after everything that came before it."""
    with closing(parts):  # also where the caller stops early: what has not started is cancelled
        for part in parts:
            if not part.errors or on_error == "skip":
                yield part
                continue
            if len(part.indices):
                yield replace(part, errors=())
            raise part.errors[0]
    source.check()
