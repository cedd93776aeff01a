"""Opens a bundle as an application: the model, its queues, the paths."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI

import align_runtime
from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import shortened
from align_runtime.load_options import LoadOptions
from align_runtime.loading import open_parts
from align_runtime.manifest import MANIFEST_NAME
from align_serving.http.admission import Admission
from align_serving.http.application import create_application
from align_serving.http.batching import Batched, Batcher, Call
from align_serving.http.fetching import FetchOptions
from align_serving.http.gate import Gate
from align_serving.http.limits import Limits
from align_serving.http.prometheus import Metrics
from align_serving.http.service import Facts, Service
from align_serving.http.towers import Towers

MAX_NAME = 200


@dataclass(frozen=True)
class ServiceOptions:
    """How a bundle is served.

    Attributes:
        name: what clients call the model; None for the name of its checkpoint.
        text_batch: most texts in one call of the model.
        image_batch: most images in one call of the model.
        runs: calls of each tower at once. Two, so that one prepares its inputs while the other computes.
        api_keys: a request needs one of them; none for a service that is open to whoever reaches it.

    Raises:
        ConfigurationError: a value is out of range.
    """

    load: LoadOptions = field(default_factory=LoadOptions)
    limits: Limits = field(default_factory=Limits)
    fetch: FetchOptions = field(default_factory=FetchOptions)
    name: str | None = None
    text_batch: int = 64
    image_batch: int = 16
    runs: int = 2
    api_keys: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for option in ("text_batch", "image_batch", "runs"):
            value = getattr(self, option)
            if type(value) is not int or not 1 <= value <= 1024:
                raise ConfigurationError(f"{option} is {shortened(value)}; expected an integer from 1 to 1024")
        if self.name is not None and not (0 < len(self.name) <= MAX_NAME and self.name.isprintable()):
            raise ConfigurationError(f"the name {shortened(self.name)} has no, or more than {MAX_NAME}, characters")


@dataclass(frozen=True, eq=False)
class Opened:
    """A model that is ready to be served."""

    towers: Towers
    facts: Facts

    @classmethod
    def of(cls, bundle: Path, options: ServiceOptions) -> Opened:
        """Loads `bundle` and runs it once.

        Raises:
            AlignError: as `align_runtime.load`.
        """
        parts = open_parts(bundle, options.load)
        model = align_runtime.Model(parts)
        model.warmup()
        created = int((parts.bundle.folder / MANIFEST_NAME).stat().st_mtime)
        facts = Facts(options.name or model.info.name, created, model.info)
        return cls(Towers(model, None if parts.text is None else parts.text.tokenizer), facts)


def application(
    opened: Opened,
    options: ServiceOptions,
    queue: Callable[[Call[Any, Any], int, int], Batched[Any, Any]] = Batcher,
    extend: Callable[[FastAPI, Service], None] | None = None,
    open_paths: Collection[str] = (),
) -> Gate:
    """The application of `opened`, whose model the caller closes after it has ended.

    Args:
        queue: makes what batches across requests, with the arguments of `Batcher`.
        extend: adds other paths to the application, of which `open_paths` need no API key.
    """
    admission = Admission(options.limits)
    metrics = Metrics(admission)
    towers = opened.towers
    texts = queue(metrics.measured("text", towers.embed_texts), options.text_batch, options.runs)
    images = queue(metrics.measured("vision", towers.embed_images), options.image_batch, options.runs)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield
        for one in (texts, images):
            if isinstance(one, Batcher):
                one.close()

    service = Service(opened.facts, texts, images, options.limits, options.fetch)
    add = None if extend is None else lambda app: extend(app, service)
    return create_application(service, metrics, admission, options.api_keys, lifespan, add, open_paths)
