"""Buckets: the shapes that a GPU runs."""

from __future__ import annotations

import pytest

from align_runtime.backends.buckets import Buckets, Piece, default_lengths
from align_runtime.errors import InputError


@pytest.mark.parametrize(
    ("count", "pieces"),
    [
        (0, []),
        (1, [Piece(slice(0, 1), 1)]),
        (2, [Piece(slice(0, 2), 8)]),
        (8, [Piece(slice(0, 8), 8)]),
        (9, [Piece(slice(0, 9), 32)]),
        (32, [Piece(slice(0, 32), 32)]),
        (65, [Piece(slice(0, 32), 32), Piece(slice(32, 64), 32), Piece(slice(64, 65), 1)]),
    ],
)
def test_rows_are_split_into_full_batches_and_the_smallest_for_the_rest(count: int, pieces: list[Piece]) -> None:
    assert list(Buckets((1, 8, 32)).pieces(count)) == pieces


def test_lengths_are_padded_to_the_next_bucket() -> None:
    buckets = Buckets((1,), (8, 16))
    assert [buckets.length(tokens) for tokens in (1, 8, 9, 16)] == [8, 8, 16, 16]
    with pytest.raises(InputError, match="17 tokens"):
        buckets.length(17)


@pytest.mark.parametrize(("longest", "lengths"), [(64, (8, 16, 32, 64)), (40, (8, 16, 32, 40)), (8, (8,)), (5, (5,))])
def test_default_lengths_end_with_the_longest(longest: int, lengths: tuple[int, ...]) -> None:
    assert default_lengths(longest) == lengths
