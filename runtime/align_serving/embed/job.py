"""The job: shard after shard, each of a fixed range of the items, so that an interrupted job ends as any other.

Each shard is embedded by a call of its own. How its items are divided into batches then depends on nothing before it,
and its rows are the same, bit for bit, in whatever process they are computed. While a shard is embedded, the one before
it is written by a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from align_runtime.embedded_rows import EmbeddedRows
from align_runtime.errors import ConfigurationError, InputError
from align_runtime.foreign_text import shortened
from align_runtime.model import Model
from align_serving.embed.items import Content, Item, ItemsDigest, Kind
from align_serving.embed.output import ItemError, Output, Shard
from align_serving.embed.status import Status


@dataclass(frozen=True)
class JobOptions:
    """How items are embedded.

    Attributes:
        shard_items: the number of items of a shard.
        batch_size: maximum number of items in one run of the graph; None chooses it.
        in_files: whether all items are files, which are then read by the threads that decode.
        max_errors: of all items; None for any number.
    """

    kind: Kind
    shard_items: int
    batch_size: int | None
    in_files: bool
    max_errors: int | None


class ErrorLimitError(InputError):
    """More items than allowed cannot be embedded.

    Attributes:
        errors: those of the shard that was not finished.
    """

    def __init__(self, message: str, errors: list[ItemError]) -> None:
        super().__init__(message)
        self.errors = errors


def check_finished(stream: Iterator[Item], output: Output, shard_items: int, status: Status) -> None:
    """Takes the items of the finished shards from `stream`, and compares them with the ledger.

    Raises:
        ConfigurationError: they are not those that the shards were made of.
    """
    first = 0
    for shard in output.ledger.shards:
        digest, count = ItemsDigest(), 0
        for count, item in enumerate(islice(stream, shard_items), start=1):  # noqa: B007  (it is used after the loop)
            digest.add(item)
            status.skip(item.units)
        if count != shard.items or digest.hexdigest() != shard.digest:
            raise ConfigurationError(
                f"the inputs have changed: items {first:,} to {first + max(count, shard.items) - 1:,} are not those "
                "that were embedded before (ids, texts, or sizes and times of files); take another output"
            )
        first += count
    if output.ledger.complete and next(stream, None) is not None:
        raise ConfigurationError(f"the inputs have changed: they hold more than the {first:,} items of before")


def embed_rest(model: Model, stream: Iterator[Item], output: Output, options: JobOptions, status: Status) -> None:
    """Embeds what is left of `stream` into `output`, which is complete then.

    Raises:
        ErrorLimitError: there are more than `options.max_errors`.
        InputError: there are no items at all.
        OSError: the output cannot be written.
    """
    start, earlier_errors = output.items, output.items - output.rows
    status.begin()
    with ThreadPoolExecutor(1, "align-embed-writer") as writer:
        written: Future[None] | None = None

        def check() -> None:
            """Raises the error of the writer as soon as it is known."""
            if written is not None and written.done():
                written.result()

        while True:
            work = _ShardWork(start, options, earlier_errors, status, check)
            try:
                shard = work.embed(model, islice(stream, options.shard_items))
            except ErrorLimitError as error:
                if written is not None:
                    written.result()
                output.add_errors(error.errors)
                raise
            if written is not None:
                written.result()
            if shard.items == 0:
                break
            written = writer.submit(output.commit, shard)
            start += shard.items
            earlier_errors += len(shard.errors)
    if start == 0:
        raise InputError(f"the inputs hold no {options.kind}; check them, and which suffixes are read")
    output.ledger.add_completion()


class _ShardWork:
    """The items of a shard on their way."""

    def __init__(
        self, start: int, options: JobOptions, earlier_errors: int, status: Status, check: Callable[[], None]
    ) -> None:
        self._start = start
        self._options = options
        self._earlier_errors = earlier_errors
        self._status = status
        self._check = check
        self._digest = ItemsDigest()
        self._ids: list[str] = []
        self._places: list[int] = []  # of what was given to the model, among the items of the shard
        self._errors: list[ItemError] = []

    def embed(self, model: Model, items: Iterator[Item]) -> Shard:
        rows = EmbeddedRows.joined(self._parts(model, items), model.info.embedding_dim)
        return Shard(
            items=len(self._ids),
            ids=[self._ids[self._places[index]] for index in rows.indices],
            rows=rows.embeddings,
            errors=sorted(self._errors, key=lambda error: error.item),
            digest=self._digest.hexdigest(),
        )

    def _parts(self, model: Model, items: Iterator[Item]) -> Iterator[EmbeddedRows]:
        contents: Iterator[Content] | list[Content] = self._contents(items)
        if self._options.in_files:
            contents = list(contents)
        size = self._options.batch_size
        parts: Generator[EmbeddedRows, None, None]
        if self._options.kind == "images":
            parts = model.iter_embed_images(contents, batch_size=size, on_error="skip")
        else:
            texts: Iterator[str] = contents  # type: ignore[assignment]
            parts = model.iter_embed_texts(texts, batch_size=size, on_error="skip")
        for part in parts:
            self._check()
            for error in part.errors:
                assert error.index is not None
                self._add_error(self._places[error.index], error.message)
            self._status.add(len(part.indices), 0)
            yield part

    def _contents(self, items: Iterator[Item]) -> Iterator[Content]:
        """What the model is given; an item that cannot be read is noted."""
        for place, item in enumerate(items):
            self._ids.append(item.id)
            self._digest.add(item)
            self._status.read(item.units)
            try:
                content = item.load()
            except InputError as error:
                self._add_error(place, error.message)
                continue
            self._places.append(place)
            yield content

    def _add_error(self, place: int, reason: str) -> None:
        error = ItemError(self._start + place, self._ids[place], reason)
        self._errors.append(error)
        self._status.add(1, 1)
        limit = self._options.max_errors
        if limit is not None and self._earlier_errors + len(self._errors) > limit:
            raise ErrorLimitError(
                f"more than {limit} items cannot be embedded, the last one is {shortened(error.id)}: {reason}; see "
                "errors.jsonl, mend them, or raise --max-errors",
                sorted(self._errors, key=lambda error: error.item),
            )
