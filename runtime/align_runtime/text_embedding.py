"""Texts to embeddings: tokenized in windows, sorted by length, run in batches, returned in the order of the input."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_runtime.embedded_rows import EmbeddedRows, OnError, delivered, usable
from align_runtime.errors import InputError
from align_runtime.processors import available_cores
from align_runtime.scheduling import Source, batches, length_batches, token_batches
from align_runtime.tokenizer import Tokenizer, check_text
from align_runtime.tower import Tower
from align_runtime.workers import Workers

TEXT_BATCH = 32
TEXT_WINDOW = 4096  # texts sorted together: a few MB of tokens and embeddings, and enough different lengths
TEXT_WINDOW_CHARACTERS = 1 << 22  # of a window, and one text more: captions have about 60, documents any number
MIN_TEXTS_PER_STREAM = 2  # a single text, or one per stream, has a lower latency with all threads
Run = Callable[[Mapping[str, NDArray[Any]]], NDArray[np.float32]]


class TextEmbedder:
    """The text tower with its tokenizer, which any number of threads may share."""

    def __init__(
        self,
        tower: Tower,
        tokenizer: Tokenizer,
        workers: Workers,
        threads: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        """`threads` limits the tokenizer, None for all cores; `batch_size` is that of calls that give none."""
        self.tower = tower
        self.tokenizer = tokenizer
        self._workers = workers
        self._batch_size = batch_size
        self._threads = threads if threads is not None and threads < available_cores() else None

    @property
    def streamed_from(self) -> int:
        """The number of texts from which on they are divided among streams."""
        return MIN_TEXTS_PER_STREAM * self.tower.streams

    def parts(
        self, texts: Iterable[str], batch_size: int | None = None, on_error: OnError = "raise"
    ) -> Generator[EmbeddedRows, None, None]:
        """Yields embeddings, one window after another, in the order of `texts`, which is read lazily.

        Args:
            batch_size: maximum number of texts in one run; None chooses it.
            on_error: ``"skip"`` yields the error of an item that is not a valid text with the rows around it.

        Raises:
            InputError: an item is not a valid text; `index` is its position in `texts`. What came before is yielded
                first.
            Exception: an error of `texts` itself, likewise.
        """
        source = Source(texts)
        return delivered(self._parts(source, batch_size, on_error), source, on_error)

    def _parts(
        self, source: Source[str], batch_size: int | None, on_error: OnError
    ) -> Generator[EmbeddedRows, None, None]:
        for window in _windows(source):
            indices, chosen, errors = usable(window, on_error)
            embeds = np.empty((0, self.tower.dim), np.float32)
            if chosen:
                embeds = self.embed_rows(self._encode(chosen), batch_size)
            yield EmbeddedRows(np.array(indices, np.int64), embeds, errors)

    def embed_rows(self, rows: Sequence[NDArray[np.int64]], batch_size: int | None = None) -> NDArray[np.float32]:
        """Embeddings float32 (n, dim) of token ids, one int64 (length,) per text, in their order; at least one text.

        Args:
            batch_size: maximum number of texts in one run; None chooses it.
        """
        batch_size = batch_size or self._batch_size
        lengths = [len(row) for row in rows]
        streams = self.tower.streams
        parts: Iterator[NDArray[np.float32]]
        if streams > 1 and len(rows) >= self.streamed_from:
            chosen = length_batches(lengths, batch_size) if batch_size else token_batches(lengths, TEXT_BATCH, streams)
            work = partial(self._run, self.tower.run_stream, rows)
            parts = self._workers.ordered(work, chosen, ahead=2 * streams)
        else:
            chosen = length_batches(lengths, self.tower.batch_size(batch_size, TEXT_BATCH))
            parts = self._workers.overlapped(partial(self._run, self.tower.run, rows), chosen, self.tower.in_flight)
        embeds = np.concatenate(list(parts))
        result = np.empty_like(embeds)
        result[[index for batch in chosen for index in batch]] = embeds
        return result

    def _encode(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Token ids of `texts`. The tokenizer runs a batch on all cores, so with fewer threads it gets single texts."""
        if self._threads is None or len(texts) == 1:
            return self.tokenizer.encode(texts)
        groups = batches(texts, -(-len(texts) // self._threads))
        return list(chain.from_iterable(self._workers.ordered(self._encode_each, groups, ahead=self._threads)))

    def _encode_each(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        return [row for text in texts for row in self.tokenizer.encode([text])]

    def _run(self, run: Run, rows: Sequence[NDArray[np.int64]], batch: Sequence[int]) -> NDArray[np.float32]:
        input_ids, attention_mask = self.tokenizer.pad([rows[index] for index in batch])
        return run({"input_ids": input_ids, "attention_mask": attention_mask})


def _windows(source: Source[str]) -> Iterator[list[tuple[int, str | InputError]]]:
    """Texts, or why they are none, in windows of at most `TEXT_WINDOW` and of about `TEXT_WINDOW_CHARACTERS`."""
    window: list[tuple[int, str | InputError]] = []
    characters = 0
    for index, text in source:
        try:
            check_text(text, index)
            window.append((index, text))
            characters += len(text)
        except InputError as error:
            window.append((index, error.at(index)))
        if len(window) == TEXT_WINDOW or characters >= TEXT_WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window
