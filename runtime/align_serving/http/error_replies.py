"""Errors as clients of OpenAI's API read them: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from align_runtime.errors import AlignError
from align_runtime.foreign_text import printable

INVALID = "invalid_request_error"
# Types by status; any other one below 500 is a request that is wrong.
TYPES = {429: "rate_limit_error", 500: "server_error", 503: "server_error"}
CLOSING = {"connection": "close"}  # the rest of the request is not read


class ServiceError(HTTPException):
    """A request that is not answered.

    Attributes:
        message: one line: what is wrong, the value seen, the fix.
        param: the key of the request that is wrong.
        code: a word for programs.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.message = str(AlignError(message))  # one printable line of at most 500 characters
        super().__init__(status, self.message, dict(headers) if headers else None)
        self.param = param
        self.code = code


def error_reply(error: HTTPException) -> Response:
    """The response for `error`; one that the framework raised (404, 405) gets its own words."""
    status = error.status_code
    described: dict[str, Any] = {
        "message": printable(str(error.detail), 500),
        "type": TYPES.get(status, INVALID),
        "param": getattr(error, "param", None),
        "code": getattr(error, "code", None) or HTTPStatus(status).phrase.lower().replace(" ", "_"),
    }
    return JSONResponse({"error": described}, status, headers=error.headers)


def overloaded(message: str, seconds: int, code: str = "queue_full") -> ServiceError:
    """429, with the seconds after which the client may try again."""
    return ServiceError(429, message, code=code, headers={"retry-after": str(seconds)})
