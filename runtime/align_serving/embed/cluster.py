"""A cluster of Ray's: the connection of the driver, and an actor that has a model. `calls` gives them work."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import align_runtime
from align_runtime.bundle import Bundle
from align_runtime.embedded_rows import EmbeddedRows
from align_runtime.errors import AlignError, BackendUnavailableError, BundleError, ConfigurationError
from align_runtime.foreign_text import shortened
from align_runtime.hub_bundle import find_bundle
from align_runtime.processors import available_cores
from align_serving.embed.arguments import LOCAL
from align_serving.embed.items import Content, Kind

try:
    import ray
    from ray.exceptions import RayError
except ImportError as error:
    raise BackendUnavailableError(
        f"ray cannot be imported ({error}); install it with: pip install 'align-onnx[ray]'"
    ) from None

MAX_RESTARTS = 50  # of an actor
CONNECT_SECONDS = 10


@dataclass(frozen=True)
class ActorOptions:
    """The actors of a job.

    Attributes:
        folder: of the driver; paths may be relative to it.
        bundle: path or hub id, the same on every node.
        manifest_sha256: of the bundle.
        load: options of `align_runtime.load`, with the tower of `kind` alone.
        batch_size: maximum number of items in one run of the graph; None chooses it.
        count: None for as many as the nodes of the cluster have room for.
        cpus: of each actor; 0 with GPUs.
        gpus: of each actor, also a share of one.
    """

    folder: Path
    bundle: str
    revision: str | None
    manifest_sha256: str
    kind: Kind
    load: dict[str, Any]
    batch_size: int | None
    count: int | None
    cpus: int
    gpus: float

    @property
    def concurrency(self) -> int:
        """The calls that run in an actor at once: on a GPU, images of one are decoded while another one is computed."""
        return 2 if self.gpus else 1


class EmbeddingActor:
    """A model on a node. What is wrong with the bundle is kept for `problem`: Ray would start the actor again."""

    def __init__(self, options: ActorOptions) -> None:
        self._problem: AlignError | None = None
        self._batch_size = options.batch_size
        with suppress(OSError):  # then it has no image either
            os.chdir(options.folder)
        try:
            found = find_bundle(options.bundle, options.revision)
            sha256 = Bundle.open(found.folder, complete=False).manifest_sha256
            if sha256 != options.manifest_sha256:
                raise BundleError(f"{options.bundle} is another bundle there (its align.json differs)")
            model = align_runtime.load(found.folder, check_hashes=found.downloaded, **options.load)
            model.warmup()
        except AlignError as error:
            self._problem = error
        else:
            self._embed: Any = model.embed_images if options.kind == "images" else model.embed_texts

    @ray.method(max_task_retries=-1)
    def problem(self) -> tuple[str, AlignError | None]:
        """The address of the node, and why there is no model; waits until the actor runs."""
        node: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        return node, self._problem

    def embed(self, contents: Sequence[Content]) -> tuple[EmbeddedRows, list[Path]]:
        """The rows of `contents`, and the files among them that this node does not have."""
        rows = self._embed(contents, batch_size=self._batch_size, on_error="skip")
        failed = [contents[error.index] for error in rows.errors]
        return rows, [path for path in failed if isinstance(path, Path) and not path.exists()]


def started(options: ActorOptions) -> list[Any]:
    """Handles of the actors, which start where and when there is room for them.

    Raises:
        ConfigurationError: no number was given, and there is no room for any.
    """
    actor: Any = ray.remote(  # type: ignore[call-overload]
        num_cpus=options.cpus,
        num_gpus=options.gpus,
        max_restarts=MAX_RESTARTS,
        max_concurrency=options.concurrency,
    )(EmbeddingActor)
    return [actor.remote(options) for _ in range(options.count or _room(options))]


def _room(options: ActorOptions) -> int:
    """The number of actors that the nodes have room for when nothing else runs."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    name, needed = ("GPU", options.gpus) if options.gpus else ("CPU", options.cpus)
    amounts = [node["Resources"].get(name, 0) for node in nodes if node["Alive"]]
    found = sum(int(amount / needed) for amount in amounts)
    if not found:
        raise ConfigurationError(
            f"an actor needs {needed:g} {name}, and the nodes have {shortened(sorted(amounts))}; take fewer, or say "
            "with --actors how many there will be once there are more nodes"
        )
    return found


@contextmanager
def connected(address: str, options: ActorOptions) -> Iterator[None]:
    """A connection to the cluster at `address`, or with `LOCAL` a cluster of this process, which ends with it.

    Raises:
        ConfigurationError: there is no cluster.
    """
    try:
        _connect(address, options)
        with redirect_stdout(sys.stderr):  # where Ray prints what became of actors, from a thread of its own
            yield
    finally:
        ray.shutdown()


def _connect(address: str, options: ActorOptions) -> None:
    settings: dict[str, Any] = {}
    if address == LOCAL:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        wanted = options.cpus * (options.count or 1)
        settings = {"num_cpus": max(available_cores(), wanted), "include_dashboard": False}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if ":" in address and "://" not in address:  # Ray itself tries for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
        ray.init(address, log_to_driver=False, logging_level=logging.WARNING, **settings)
    except SystemExit:
        raise KeyboardInterrupt from None  # by Ray's handler of SIGTERM
    except (OSError, OverflowError, RuntimeError, ValueError, RayError) as error:
        raise ConfigurationError(
            f"there is no Ray cluster at {address}: {shortened(str(error))}; start one with `ray start --head`, or "
            "leave the address out for one on this machine"
        ) from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray has replaced it
