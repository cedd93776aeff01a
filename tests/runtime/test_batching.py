"""Batches of texts and images."""

from __future__ import annotations

import numpy as np
import pytest

from align_runtime.scheduling import batches, length_batches, token_batches


def test_batches_read_no_further_than_needed() -> None:
    items = iter(range(5))
    parts = batches(items, 2)
    assert next(parts) == [0, 1]
    assert next(items) == 2
    assert list(parts) == [[3, 4]]


def test_texts_of_similar_length_share_a_batch() -> None:
    assert length_batches([5, 1, 4, 2, 3], 2) == [[1, 3], [4, 2], [0]]
    assert length_batches([7] * 5, 2) == [[0, 1], [2, 3], [4]]  # equal lengths keep their order


@pytest.mark.parametrize("streams", [2, 3, 8])
def test_streams_get_about_the_same_number_of_tokens(streams: int) -> None:
    lengths = np.random.default_rng(1).integers(3, 30, 200).tolist()
    divided = token_batches(lengths, 32, streams)
    assert sorted(index for part in divided for index in part) == list(range(200))
    assert len(divided) % streams == 0
    assert len(divided) >= 200 / 32
    tokens = [sum(lengths[index] for index in part) for part in divided]
    assert max(tokens) - min(tokens) <= 2 * max(lengths)
    by_rows = [sum(sorted(lengths)[start : start + 25]) for start in range(0, 200, 25)]
    assert max(by_rows) - min(by_rows) > 4 * max(lengths)  # as if split by the number of texts


def test_one_long_text_leaves_no_empty_batch() -> None:
    divided = token_batches([512, 2, 2, 2], 32, 4)
    assert all(divided)
    assert sorted(index for part in divided for index in part) == [0, 1, 2, 3]
