"""Texts to embeddings: tokenised in windows, sorted by length, run in batches, handed out in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_runtime.errors import InputError
from align_runtime.scheduling import Workers, batches, length_batches, token_batches
from align_runtime.tokenizer import Tokenizer
from align_runtime.tower import Tower

TEXT_BATCH = 32
TEXT_WINDOW = 4096  # texts that are sorted together: some MB of tokens and embeddings, and lengths enough to sort
MIN_TEXTS_PER_STREAM = 2  # one text, or one for each stream, is answered sooner by all threads
Run = Callable[[Mapping[str, NDArray[Any]]], NDArray[np.float32]]


class TextEmbedder:
    """The text tower with its tokenizer. Many threads may share one."""

    def __init__(self, tower: Tower, tokenizer: Tokenizer, workers: Workers) -> None:
        self.tower = tower
        self.tokenizer = tokenizer
        self._workers = workers

    @property
    def streamed_from(self) -> int:
        """How many texts it takes for them to be divided among streams."""
        return MIN_TEXTS_PER_STREAM * self.tower.streams

    def parts(self, texts: Iterable[str]) -> Iterator[NDArray[np.float32]]:
        """Embeddings float32 (n, dim) of one window after the other, in the order of `texts`, read as needed.

        Raises:
            InputError: something that is no text, with its place in the input.
        """
        done = 0
        for window in batches(texts, TEXT_WINDOW):
            try:
                rows = self.tokenizer.encode(window)
            except InputError as error:
                raise error.shifted(done) from None
            yield self.embed_rows(rows)
            done += len(window)

    def embed_rows(self, rows: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Embeddings float32 (n, dim) of token ids int64 (length,) each, at least one, sorted into batches and back."""
        lengths = [len(row) for row in rows]
        parts: Iterator[NDArray[np.float32]]
        streams = self.tower.streams
        if streams > 1 and len(rows) >= self.streamed_from:
            divided = token_batches(lengths, TEXT_BATCH, streams)
            work = partial(self._run, self.tower.run_stream, rows)
            parts = self._workers.ordered(work, divided, ahead=2 * streams)
        else:
            divided = length_batches(lengths, TEXT_BATCH)
            parts = map(partial(self._run, self.tower.run, rows), divided)
        embeds = np.concatenate(list(parts))
        result = np.empty_like(embeds)
        result[[index for chosen in divided for index in chosen]] = embeds
        return result

    def _run(self, run: Run, rows: Sequence[NDArray[np.int64]], chosen: Sequence[int]) -> NDArray[np.float32]:
        input_ids, attention_mask = self.tokenizer.pad([rows[index] for index in chosen])
        return run({"input_ids": input_ids, "attention_mask": attention_mask})
