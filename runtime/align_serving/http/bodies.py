"""Reading the body of a request: bounded in bytes and time, and as strict JSON."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.types import Receive, Scope

from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import shortened
from align_runtime.json_files import parse_object
from align_serving.http.admission import Ticket
from align_serving.http.error_replies import CLOSING, ServiceError
from align_serving.http.limits import Limits

MAX_VALUES = 300_000  # commas of a body: so many objects take half a second to read. 16 MiB of prose have fewer
THREAD_BYTES = 1 << 20  # a larger body is read in a thread, beside which other requests go on
MAX_KEYS = 64  # of the body's object; a validator lists every unknown one
MEDIA_TYPE = "application/json"


class BoundedRequest(Request):
    """A request whose body is read by `Limits`, and counted in `ticket` as it arrives."""

    def __init__(self, scope: Scope, receive: Receive, ticket: Ticket, limits: Limits) -> None:
        super().__init__(scope, receive)
        self.ticket = ticket
        self.limits = limits

    async def body(self) -> bytes:
        """The whole body.

        Raises:
            ServiceError: 408, 413, 415 or 429.
        """
        if not hasattr(self, "_body"):
            self._check_head()
            try:
                async with asyncio.timeout(self.limits.body_seconds):
                    self._body = await self._read()
            except TimeoutError:
                raise ServiceError(
                    408,
                    f"the body did not arrive within {self.limits.body_seconds:g} seconds; send it faster or in parts",
                    headers=CLOSING,
                ) from None
        return self._body

    async def json(self) -> Any:
        """The body as a JSON object without NaN, duplicate keys, deep nesting or halves of surrogate pairs.

        Raises:
            ServiceError: 400, or as in `body`.
        """
        data = await self.body()
        if data.count(b",") > MAX_VALUES:
            raise ServiceError(400, f"the body has more than {MAX_VALUES} values; send fewer", code="invalid_json")
        try:
            parse = partial(parse_object, data, "the body", ConfigurationError, unique_keys=True)
            values = parse() if len(data) <= THREAD_BYTES else await asyncio.to_thread(parse)
        except ConfigurationError as error:
            raise ServiceError(400, str(error), code="invalid_json") from None
        if len(values) > MAX_KEYS:
            raise ServiceError(400, f"the body has {len(values)} keys; expected at most {MAX_KEYS}")
        return values

    async def _read(self) -> bytes:
        parts, size = [], 0
        async for part in self.stream():
            size += len(part)
            self._check_size(size)
            self.ticket.add_bytes(len(part))
            parts.append(part)
        return b"".join(parts)

    def _check_head(self) -> None:
        kind, _, parameters = self.headers.get("content-type", "").partition(";")
        if kind.strip().lower() != MEDIA_TYPE:
            raise ServiceError(415, f"the content type is {shortened(kind)}; expected {MEDIA_TYPE}", headers=CLOSING)
        charset = parameters.replace(" ", "").replace('"', "").lower()
        if charset.startswith("charset=") and charset not in ("charset=utf-8", "charset=utf8"):
            raise ServiceError(415, f"the body has the {shortened(charset)}; expected UTF-8", headers=CLOSING)
        encoding = self.headers.get("content-encoding", "identity")
        if encoding.strip().lower() != "identity":
            raise ServiceError(415, f"the content encoding is {shortened(encoding)}; expected none", headers=CLOSING)
        length = self.headers.get("content-length", "")
        if length.isdigit():
            self._check_size(int(length[:20]))

    def _check_size(self, size: int) -> None:
        if size > self.limits.body_bytes:
            raise ServiceError(
                413,
                f"the body has {size} bytes or more; expected at most {self.limits.body_bytes}; send fewer or smaller "
                "inputs",
                headers=CLOSING,
            )
