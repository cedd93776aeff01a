"""The job: shard after shard, each of a fixed range of the items, so that an interrupted job ends as any other.

Each shard is embedded by a call of its own. How its items are divided into batches then depends on nothing before it,
and its rows are the same, bit for bit, in whatever process they are computed. While a shard is embedded, the one before
it is written by a thread. What computes may read some shards ahead, as `cluster` does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
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

# The contents of each shard to its rows, in parts. The contents of a shard are read to their end before those of the
# next one are asked for, and so are its rows.
Compute = Callable[[Iterator[Iterator[Content]]], Iterator[Iterator[EmbeddedRows]]]


@dataclass(frozen=True)
class JobOptions:
    """How items are embedded.

    Attributes:
        dim: of the rows.
        shard_items: the number of items of a shard.
        max_errors: of all items; None for any number.
    """

    kind: Kind
    dim: int
    shard_items: int
    max_errors: int | None


def compute_with(model: Model, kind: Kind, batch_size: int | None, in_files: bool) -> Compute:
    """Embeds with `model`, one shard after another.

    Args:
        batch_size: maximum number of items in one run of the graph; None chooses it.
        in_files: whether all items are files, which are then read by the threads that decode.
    """
    embed: Callable[..., Iterator[EmbeddedRows]] = (
        model.iter_embed_images if kind == "images" else model.iter_embed_texts
    )

    def compute(shards: Iterator[Iterator[Content]]) -> Iterator[Iterator[EmbeddedRows]]:
        for contents in shards:
            listed: Iterable[Content] = list(contents) if in_files else contents
            yield embed(listed, batch_size=batch_size, on_error="skip")

    return compute


class ErrorLimitError(InputError):
    """More items than allowed cannot be embedded."""


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


def embed_rest(compute: Compute, stream: Iterator[Item], output: Output, options: JobOptions, status: Status) -> None:
    """Embeds what is left of `stream` into `output`, which is complete then.

    Raises:
        ErrorLimitError: there are more than `options.max_errors`.
        InputError: there are no items at all.
        OSError: the output cannot be written.
    """
    reading = _Reading(stream, output, options, status)
    status.begin()
    with ThreadPoolExecutor(1, "align-embed-writer") as writer:
        written: Future[None] | None = None

        def checked(parts: Iterator[EmbeddedRows]) -> Iterator[EmbeddedRows]:
            """Raises the error of the writer as soon as it is known."""
            for part in parts:
                if written is not None and written.done():
                    written.result()
                yield part

        try:
            for parts in compute(reading.shards()):
                shard = reading.finished(checked(parts))
                if written is not None:
                    written.result()
                if shard.items:
                    written = writer.submit(output.commit, shard)
        except ErrorLimitError:
            if written is not None:
                written.result()
            output.add_errors(reading.errors)
            raise
        if written is not None:
            written.result()
    if output.items == 0:
        raise InputError(f"the inputs hold no {options.kind}; check them, and which suffixes are read")
    output.ledger.add_completion()


class _Reading:
    """The shards that are read and not yet finished, in order; the last one has no items."""

    def __init__(self, stream: Iterator[Item], output: Output, options: JobOptions, status: Status) -> None:
        self._stream = stream
        self._start = output.items
        self._earlier_errors = output.items - output.rows
        self._options = options
        self._status = status
        self._works: deque[_ShardWork] = deque()

    def shards(self) -> Iterator[Iterator[Content]]:
        """What is embedded of each shard, which has to be read to its end before the next one is asked for."""
        while True:
            work = _ShardWork(self._start, self._status, self._check)
            self._works.append(work)
            yield work.contents(islice(self._stream, self._options.shard_items))
            if not work.ids:
                return
            self._start += len(work.ids)

    def finished(self, parts: Iterator[EmbeddedRows]) -> Shard:
        """The first of the shards, of which `parts` are the rows."""
        shard = self._works[0].shard(parts, self._options.dim)
        self._works.popleft()
        self._earlier_errors += len(shard.errors)
        return shard

    @property
    def errors(self) -> list[ItemError]:
        """Those of the shards that are not finished."""
        return sorted((error for work in self._works for error in work.errors), key=lambda error: error.item)

    def _check(self, error: ItemError) -> None:
        limit = self._options.max_errors
        if limit is not None and self._earlier_errors + sum(len(work.errors) for work in self._works) > limit:
            raise ErrorLimitError(
                f"more than {limit} items cannot be embedded, the last one is {shortened(error.id)}: {error.reason}; "
                "see errors.jsonl, mend them, or raise --max-errors"
            )


class _ShardWork:
    """The items of a shard on their way.

    Attributes:
        ids: of the items that were read.
        errors: of items without a row.
    """

    def __init__(self, start: int, status: Status, check: Callable[[ItemError], None]) -> None:
        """Begins with item `start`; `check` is called with each error."""
        self.ids: list[str] = []
        self.errors: list[ItemError] = []
        self._start = start
        self._status = status
        self._check = check
        self._digest = ItemsDigest()
        self._places: list[int] = []  # of what is embedded, among the items of the shard

    def contents(self, items: Iterator[Item]) -> Iterator[Content]:
        """What is embedded; an item that cannot be read is noted."""
        for place, item in enumerate(items):
            self.ids.append(item.id)
            self._digest.add(item)
            self._status.read(item.units)
            try:
                content = item.load()
            except InputError as error:
                self._add_error(place, error.message)
                continue
            self._places.append(place)
            yield content

    def shard(self, parts: Iterator[EmbeddedRows], dim: int) -> Shard:
        rows = EmbeddedRows.joined(map(self._noted, parts), dim)
        return Shard(
            items=len(self.ids),
            ids=[self.ids[self._places[index]] for index in rows.indices],
            rows=rows.embeddings,
            errors=sorted(self.errors, key=lambda error: error.item),
            digest=self._digest.hexdigest(),
        )

    def _noted(self, part: EmbeddedRows) -> EmbeddedRows:
        for error in part.errors:
            assert error.index is not None
            self._add_error(self._places[error.index], error.message)
        self._status.add(len(part.indices), 0)
        return part

    def _add_error(self, place: int, reason: str) -> None:
        error = ItemError(self._start + place, self.ids[place], reason)
        self.errors.append(error)
        self._status.add(1, 1)
        self._check(error)
