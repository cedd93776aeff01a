"""The web server: uvicorn, with bounds on heads and on clients that do not read, and an end that loses no request."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from asyncio.events import TimerHandle
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import shortened
from align_serving.http.gate import Gate
from align_serving.http.limits import Limits

LOG = logging.getLogger(__name__)
MAX_HEAD = 64 << 10  # bytes


@dataclass(frozen=True)
class ServerOptions:
    """Where the server listens, and how it ends.

    Attributes:
        drain_seconds: after SIGTERM, how long ``/healthz`` answers 503 while requests are still taken, so that a load
            balancer sends no new ones.
        shutdown_seconds: how long requests may take after that.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    drain_seconds: float = 1.0
    shutdown_seconds: int = 60


def bind(options: ServerOptions) -> socket.socket:
    """A socket that is bound to the address of `options`, and does not listen yet: who connects is refused.

    Raises:
        ConfigurationError: the address is in use, unknown, or not this machine's.
    """
    with ExitStack() as on_error:
        try:
            found = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, kind, protocol, _, address = found[0]
            bound = on_error.enter_context(socket.socket(family, kind, protocol))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except (OSError, OverflowError, UnicodeError) as reason:
            raise ConfigurationError(
                f"cannot listen at {shortened(options.host)}, port {options.port}: {reason}; choose others with --host "
                "and --port"
            ) from None
        on_error.pop_all()
        return bound


def serve(
    app: Gate, bound: socket.socket, limits: Limits, options: ServerOptions, ready: Callable[[Server], None]
) -> None:
    """Answers requests until SIGTERM or SIGINT; a second one ends it at once. `ready` is called when it listens."""
    config = uvicorn.Config(
        app,
        http=_bounded_protocol(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=options.shutdown_seconds,
    )
    Server(config, app, options.drain_seconds, ready).run([bound])


class Server(uvicorn.Server):
    """Ends in two steps: it says that it will, then it does."""

    def __init__(
        self, config: uvicorn.Config, app: Gate, drain_seconds: float, ready: Callable[[Server], None]
    ) -> None:
        super().__init__(config)
        self._ready = ready
        self._app = app
        self._drain_seconds = drain_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 (uvicorn's signature)
        """Not uvicorn's, which raises the signal again after the end."""
        LOG.info("%s: the server ends", signal.Signals(sig).name)
        self.force_exit = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, and says that it is done."""
        await super().startup(sockets)
        self._ready(self)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Lets clients notice, answers what has come, and ends."""
        self._app.draining = True
        for _ in range(int(self._drain_seconds * 20)):
            if not self.force_exit:
                await asyncio.sleep(0.05)
        await super().shutdown(sockets)


def _bounded_protocol(limits: Limits) -> type[HttpToolsProtocol]:
    class BoundedProtocol(HttpToolsProtocol):
        """A connection that is closed when the head of a request is too slow or too long, or answers are not read."""

        _timer: TimerHandle | None = None
        _head_bytes = 0
        _in_head = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._in_head = True
            self._start(transport.close)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if not self._in_head:
                self._in_head, self._head_bytes = True, 0
                self._start(self.transport.close)

        def on_headers_complete(self) -> None:
            self._in_head = False
            self._stop()
            super().on_headers_complete()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._in_head and not self.transport.is_closing():
                self._head_bytes += len(data)
                if self._head_bytes > MAX_HEAD:
                    self.send_400_response("The head of the request is too long.")

        def pause_writing(self) -> None:
            super().pause_writing()
            self._start(self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop()

        def _start(self, then: Any) -> None:
            self._stop()
            self._timer = self.loop.call_later(limits.head_seconds, then)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return BoundedProtocol
