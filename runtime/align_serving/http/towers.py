"""The two towers as blocking calls on batches, with one result, or the error, for each item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

import align_runtime
from align_runtime.errors import InputError
from align_runtime.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Row:
    """The embedding of one item, float32 (dim,), and the number of its tokens, 0 for an image."""

    embedding: NDArray[np.float32]
    tokens: int = 0


Result: TypeAlias = Row | InputError


class Towers:
    """`model` with its tokenizer, which counts tokens; None without the text tower."""

    def __init__(self, model: align_runtime.Model, tokenizer: Tokenizer | None) -> None:
        self.model = model
        self._tokenizer = tokenizer

    def embed_texts(self, texts: Sequence[str]) -> list[Result]:
        """A `Row`, or why there is none, for each text."""
        assert self._tokenizer is not None
        results = _by_item(self.model.embed_texts(texts, on_error="skip"), len(texts))
        valid = [index for index, result in enumerate(results) if isinstance(result, Row)]
        ids = self._tokenizer.encode([texts[index] for index in valid])
        for index, tokens in zip(valid, ids, strict=True):
            results[index] = Row(results[index].embedding, len(tokens))  # type: ignore[union-attr]
        return results

    def embed_images(self, images: Sequence[bytes]) -> list[Result]:
        """A `Row`, or why there is none, for each encoded image."""
        return _by_item(self.model.embed_images(images, on_error="skip"), len(images))


def _by_item(rows: align_runtime.EmbeddedRows, count: int) -> list[Result]:
    found: dict[int, Result] = {error.index or 0: InputError(error.message) for error in rows.errors}
    found |= {index: Row(embedding) for index, embedding in zip(rows.indices.tolist(), rows.embeddings, strict=True)}
    return [found[index] for index in range(count)]
