"""The computing of a job by actors on a cluster: the driver reads ahead, and puts rows in the order of the items.

Calls are given to actors one by one instead of through Ray Data or an ActorPool. Ray Data reads its input on the nodes,
and loads the models anew for each shard; an ActorPool has no bound on what waits, and leaves an actor idle while the
driver waits for another one. An actor that dies is started again by Ray, where there is room for it; meanwhile the
others compute what it had.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError

from align_runtime.embedded_rows import EmbeddedRows
from align_runtime.errors import AlignError, BundleError, ConfigurationError, DeviceError
from align_runtime.foreign_text import shortened
from align_runtime.progress import Progress
from align_runtime.scheduling import Source
from align_serving.embed.cluster import ActorOptions, started
from align_serving.embed.items import Content, Kind

CALL_ITEMS: dict[Kind, int] = {"images": 64, "texts": 1024}
CALL_BYTES = 32 << 20  # of a call, and one image more
CALLS_READ = 4  # per call that runs: what is read ahead, and rows that wait for those before them
MAX_TRIES = 5  # of a call whose actor dies; an item that ends every process must not do so for ever
WAIT_SECONDS = 60  # until it is said that there is no room for an actor


@dataclass(eq=False)
class _Call:
    """Items of one call of an actor; the end of a shard where there are none.

    Attributes:
        contents: reference of Ray's.
        rows: None while they are computed, and at the end of a shard.
        tries: the number of actors that died with it.
    """

    count: int = 0
    contents: Any = None
    rows: EmbeddedRows | None = None
    tries: int = 0

    @property
    def done(self) -> bool:
        return self.count == 0 or self.rows is not None


class Actors:
    """The actors of a job; calling them embeds shards, as `job.Compute`."""

    def __init__(self, options: ActorOptions, progress: Progress) -> None:
        self._options = options
        self._progress = progress
        self._calls_of_actor = options.concurrency + 1  # one waits, so that none of them has to
        self._ready: dict[Any, int] = {}  # actor → calls that it has
        self._starting: dict[Any, Any] = {}  # reference of `problem` → actor
        self._running: dict[Any, tuple[_Call, Any]] = {}  # reference of the rows → call, actor
        self._again: deque[_Call] = deque()  # whose actor died
        for actor in started(options):
            self._start(actor)

    def __call__(self, shards: Iterator[Iterator[Content]]) -> Iterator[Iterator[EmbeddedRows]]:
        answers = self._in_order(Source(_calls(shards, CALL_ITEMS[self._options.kind])))
        for answer in answers:
            yield _until_end(chain([answer], answers))

    def _in_order(self, source: Source[_Call]) -> Iterator[_Call]:
        """The calls of `source`, done, in its order; an error of `source` after everything before it."""
        unread = (call for _, call in source)
        waiting: deque[_Call] = deque()
        limit = CALLS_READ * self._calls_of_actor * len(self._starting)
        reading = True
        while reading or waiting:
            while waiting and waiting[0].done:
                yield waiting.popleft()
            while self._has_room() and (self._again or (reading and len(waiting) < limit)):
                if self._again:
                    self._submit(self._again.popleft())
                    continue
                call = next(unread, None)
                if call is None:
                    reading = False
                else:
                    waiting.append(call)
                    self._submit(call)
            if (waiting and not waiting[0].done) or (reading and not self._has_room()):
                self._wait()
        source.check()

    def _start(self, actor: Any) -> None:
        """Waits for `actor`, which may be given calls then."""
        self._starting[actor.problem.remote()] = actor

    def _has_room(self) -> bool:
        return min(self._ready.values(), default=self._calls_of_actor) < self._calls_of_actor

    def _submit(self, call: _Call) -> None:
        """Gives `call` to the actor with the fewest."""
        if call.count:
            actor = min(self._ready, key=self._ready.__getitem__)
            self._ready[actor] += 1
            self._running[actor.embed.remote(call.contents)] = call, actor

    def _wait(self) -> None:
        """Until a call or a start ends."""
        references = [*self._running, *self._starting]
        ended, _ = ray.wait(references, timeout=WAIT_SECONDS)
        if not ended and not self._ready:
            left = ray.available_resources()  # type: ignore[no-untyped-call]
            self._progress.warn(
                f"no actor runs yet: each needs {self._options.cpus} CPUs and {self._options.gpus:g} GPUs, and "
                f"{shortened(left)} are left"
            )
        if ended:
            ended, _ = ray.wait(references, num_returns=len(references), timeout=0)
        for reference in ended:
            if reference in self._starting:
                self._take_started(reference)
            else:
                self._take_rows(reference)

    def _take_started(self, reference: Any) -> None:
        actor = self._starting.pop(reference)
        try:
            node, problem = ray.get(reference)
        except RayTaskError:
            raise
        except RayError as error:  # it died too often, or Ray cannot start it
            if not self._ready and not self._starting:
                raise DeviceError(f"no actor runs any more: {shortened(str(error))}; see Ray's logs") from None
            self._progress.warn(f"an actor is given up: {shortened(str(error))}")
            return
        if problem is not None:
            advice = "every node needs the bundle at the same path" if isinstance(problem, BundleError) else ""
            raise type(problem)(f"node {node}: {problem}" + (f"; {advice}" if advice else ""))
        self._ready[actor] = 0

    def _take_rows(self, reference: Any) -> None:
        call, actor = self._running.pop(reference)
        if actor in self._ready:
            self._ready[actor] -= 1
        try:
            call.rows, missing = ray.get(reference)
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, AlignError) else error from None
        except RayError as error:
            call.tries += 1
            if call.tries == MAX_TRIES:
                raise DeviceError(
                    f"{MAX_TRIES} actors died with the same {call.count} items, the last one so: "
                    f"{shortened(str(error))}; see Ray's logs; are they short of memory?"
                ) from None
            self._again.append(call)
            if self._ready.pop(actor, None) is not None:
                self._start(actor)
            return
        call.contents = None
        here = next((path for path in missing if path.exists()), None)
        if here is not None:
            raise ConfigurationError(
                f"{here} is not there on a node; images in files must be at the same path on every node, or in an "
                "archive, which is read here"
            )


def _calls(shards: Iterator[Iterator[Content]], size: int) -> Iterator[_Call]:
    """The calls of each shard, each with at most `size` items, and one without any at its end."""
    for contents in shards:
        group: list[Content] = []
        byte_count = 0
        for content in contents:
            group.append(content)
            byte_count += len(content) if isinstance(content, bytes) else 0
            if len(group) == size or byte_count > CALL_BYTES:
                yield _Call(len(group), ray.put(group))
                group, byte_count = [], 0
        if group:
            yield _Call(len(group), ray.put(group))
        yield _Call()


def _until_end(calls: Iterator[_Call]) -> Iterator[EmbeddedRows]:
    """The rows of `calls` up to the end of the shard, with positions in the shard."""
    start = 0
    for call in calls:
        if call.rows is None:
            return
        errors = tuple(error.at((error.index or 0) + start) for error in call.rows.errors)
        yield replace(call.rows, indices=call.rows.indices + np.int64(start), errors=errors)
        start += call.count
