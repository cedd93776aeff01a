"""What stands in front of every request: the API key, the metrics, and the end of connections at a shutdown."""

from __future__ import annotations

import hmac
import time
from collections.abc import Collection, Sequence
from hashlib import sha256

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from align_serving.http.error_replies import ServiceError, error_reply
from align_serving.http.prometheus import Metrics

OPEN_PATHS = ("/healthz",)  # what a load balancer asks, without a key


class Gate:
    """Wraps an application.

    Args:
        api_keys: a request needs one of them; none for an application that is open.
        open_paths: beside `OPEN_PATHS`, those that need none.

    Attributes:
        draining: whether the service is about to end: it answers, says that it is not healthy, and asks clients to
            close their connections.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, api_keys: Sequence[str], open_paths: Collection[str] = ()
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._hashes = [sha256(key.encode()).digest() for key in api_keys]
        self._open_paths = open_paths
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.draining:
                    MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        try:
            refused = self._refusal(scope)
            await (error_reply(refused) if refused else self._app)(scope, receive, noting)
        finally:
            # The template of the route, so that nobody makes up names of metrics.
            path = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(path, status).inc()
            self._metrics.request_seconds.labels(path).observe(time.perf_counter() - start)

    def _refusal(self, scope: Scope) -> ServiceError | None:
        if scope["path"] in OPEN_PATHS:
            return ServiceError(503, "the server is shutting down", code="shutting_down") if self.draining else None
        if not self._hashes or scope["path"] in self._open_paths:
            return None
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        given = sha256(key.strip().encode()).digest() if scheme.lower() == "bearer" else b""
        # Every hash is compared, in constant time: neither the time nor the order of the keys tells anything.
        if sum(hmac.compare_digest(given, known) for known in self._hashes):
            return None
        return ServiceError(
            401,
            "the API key is missing or wrong; send the header Authorization: Bearer KEY",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )
