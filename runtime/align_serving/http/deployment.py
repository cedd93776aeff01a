"""The service as a deployment of Ray Serve: ``serve run align_serving.http:app bundle=/path/to/bundle``.

Each replica has a model of its own and answers by `align_serving.http.application`; its queues are `serve.batch`'s.
The number of replicas, autoscaling and resources are options of Ray Serve for the deployment ``Embeddings``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from align_runtime.errors import BackendUnavailableError, ConfigurationError
from align_runtime.foreign_text import shortened
from align_runtime.hub_bundle import find_bundle
from align_runtime.load_options import LoadOptions
from align_serving.http.api_keys import environment_keys
from align_serving.http.batching import Batched, Call, R, T
from align_serving.http.fetching import FetchOptions
from align_serving.http.gate import Gate
from align_serving.http.limits import Limits
from align_serving.http.opening import Opened, ServiceOptions, application
from align_serving.ray import actor_cores

try:
    from ray import serve
except ImportError as error:
    raise BackendUnavailableError(
        f"ray[serve] cannot be imported ({error}); install it with: pip install 'align-onnx[ray]'"
    ) from None

WAIT_SECONDS = 0.002  # for requests that come at once
# Beyond what a replica queues itself, so that its own 429 with Retry-After comes first.
MAX_ONGOING = 4096
KINDS: dict[str, type] = {
    "bundle": str, "precision": str, "device": str, "name": str, "text_batch": int, "image_batch": int, "runs": int,
    "threads": int, "max_items": int, "max_queue": int, "fetch_hosts": str,
}  # fmt: skip


def build(arguments: Mapping[str, Any]) -> serve.Application:
    """The application of Ray Serve for ``bundle`` and the options in `KINDS`, as ``serve run`` or its file give them.

    Raises:
        ConfigurationError: the bundle is missing, or an option is unknown or out of range.
    """
    given = dict(arguments)
    unknown = sorted(set(given) - set(KINDS))
    if unknown or "bundle" not in given:
        problem = f"unknown option {shortened(unknown[0])}" if unknown else "bundle is missing"
        raise ConfigurationError(f"{problem}; expected bundle=PATH and any of {', '.join(sorted(KINDS))}")
    for name, value in given.items():
        try:
            given[name] = KINDS[name](value)  # a command line has texts
        except (TypeError, ValueError):
            raise ConfigurationError(f"{name} is {shortened(value)}; expected {KINDS[name].__name__}") from None
    load = {name: given[name] for name in ("precision", "device", "threads") if name in given}
    limits = {to: given[name] for name, to in (("max_items", "items"), ("max_queue", "queue_items")) if name in given}
    service = {name: given[name] for name in ("name", "text_batch", "image_batch", "runs") if name in given}
    hosts = tuple(host for host in given.get("fetch_hosts", "").split(",") if host)
    options = ServiceOptions(load=LoadOptions(**load), limits=Limits(**limits), fetch=FetchOptions(hosts), **service)
    return Embeddings.bind(given["bundle"], options)  # type: ignore[attr-defined]


@serve.deployment(name="Embeddings", max_ongoing_requests=MAX_ONGOING, ray_actor_options={"num_cpus": 1})
@serve.ingress()
class Embeddings:
    """One replica: a model on the cores or the GPU that Ray gave it."""

    def __init__(self, bundle: str, options: ServiceOptions) -> None:
        if options.load.threads is None and options.load.device == "cpu":
            options = replace(options, load=replace(options.load, threads=actor_cores()))
        self._options = replace(options, api_keys=options.api_keys + environment_keys())
        self._opened = Opened.of(Path(find_bundle(bundle).folder), self._options)

    def __serve_build_asgi_app__(self) -> Gate:
        """The application of this replica, which Ray asks for."""
        return application(self._opened, self._options, _batched)


def _batched(call: Call[T, R], max_batch: int, runs: int) -> Batched[T, R]:
    """As `Batcher`, with the queue of Ray Serve."""

    @serve.batch(
        max_batch_size=max_batch,
        batch_wait_timeout_s=WAIT_SECONDS,
        max_concurrent_batches=runs,
        batch_size_fn=lambda parts: sum(map(len, parts)),
    )
    async def together(parts: list[Sequence[T]]) -> list[Sequence[R]]:
        results = await asyncio.to_thread(call, [item for part in parts for item in part])
        left = iter(results)
        return [[next(left) for _ in part] for part in parts]

    async def batched(items: Sequence[T], /) -> Sequence[R]:
        parts = [items[start : start + max_batch] for start in range(0, len(items), max_batch)]
        return [result for part in await asyncio.gather(*map(together, parts)) for result in part]

    return batched
