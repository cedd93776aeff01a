"""The FastAPI application: paths, their OpenAPI document, and errors in OpenAI's form."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

import align_runtime
from align_runtime.foreign_text import printable, shortened
from align_serving.http import prometheus
from align_serving.http.admission import Admission
from align_serving.http.bodies import MEDIA_TYPE, BoundedRequest
from align_serving.http.error_replies import ServiceError, error_reply
from align_serving.http.gate import Gate
from align_serving.http.prometheus import Metrics
from align_serving.http.schemas import (
    EXAMPLES,
    ClassifyRequest,
    ClassifyResponse,
    EmbeddingsRequest,
    EmbeddingsResponse,
    ErrorResponse,
    Health,
    ModelEntry,
    ModelList,
)
from align_serving.http.service import Service

LOG = logging.getLogger(__name__)
Lifespan = Callable[[Any], AbstractAsyncContextManager[None]]

_WORDS = {
    400: "The request is wrong; `param` names its key.",
    401: "The API key is missing or wrong.",
    404: "There is no such model.",
    405: "The path has other methods, see Allow.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not application/json in UTF-8.",
    429: "Too much waits already; see Retry-After.",
    500: "The model failed.",
    503: "The answer took too long, or the server is shutting down.",
}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorResponse, "description": _WORDS[status]} for status in statuses}


POST_ERRORS = error_responses(400, 404, 405, 408, 413, 415, 429, 500, 503)


class _BoundedRoute(APIRoute):
    """A route whose requests are `BoundedRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            with request.app.state.admission.request() as ticket:
                limits = request.app.state.service.limits
                return await answer(BoundedRequest(request.scope, request.receive, ticket, limits))

        return bounded


def create_application(
    service: Service,
    metrics: Metrics,
    admission: Admission,
    api_keys: Sequence[str] = (),
    lifespan: Lifespan | None = None,
    extend: Callable[[FastAPI], None] | None = None,
    open_paths: Collection[str] = (),
) -> Gate:
    """The application around `service`; with `api_keys`, a request needs one of them. `extend` adds other paths.

    `open_paths` are those that need no key, see `Gate`.
    """
    app = FastAPI(
        title="align-serve",
        version=align_runtime.__version__,
        description="Embeddings of images and texts, compatible with OpenAI's API.",
        docs_url=None,  # these pages load scripts of others
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.service, app.state.admission = service, admission
    app.router.route_class = _BoundedRoute
    _add_paths(app, service, metrics)
    if extend is not None:
        extend(app)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    app.openapi = lambda: _document(app, bool(api_keys))  # type: ignore[method-assign]
    return Gate(app, metrics, api_keys, open_paths)


def _add_paths(app: FastAPI, service: Service, metrics: Metrics) -> None:
    @app.post("/v1/embeddings", response_model=EmbeddingsResponse, responses=POST_ERRORS)
    async def embeddings(body: EmbeddingsRequest, request: Request) -> Response:
        """Embeddings of texts and images, unit vectors in the order of the input."""
        return await answered(request, service.embeddings(body, request.ticket))  # type: ignore[attr-defined]

    @app.post("/v1/classify", response_model=ClassifyResponse, responses=POST_ERRORS)
    async def classify(body: ClassifyRequest, request: Request) -> Response:
        """The probability of each label for each image."""
        return await answered(request, service.classify(body, request.ticket))  # type: ignore[attr-defined]

    @app.get("/v1/models", response_model=ModelList, responses=error_responses(405))
    async def models() -> Any:
        """The model of this server."""
        return {"object": "list", "data": [service.facts.to_json()]}

    @app.get("/v1/models/{model:path}", response_model=ModelEntry, responses=error_responses(404, 405))
    async def model(model: str) -> Any:
        """One model."""
        service.check_model(model)
        return service.facts.to_json()

    @app.get("/healthz", response_model=Health, responses=error_responses(405, 503))
    async def health() -> Any:
        """Whether the server takes requests."""
        return {"status": "ok"}

    @app.get(
        "/metrics",
        response_class=Response,
        responses=error_responses(405) | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def text_metrics() -> Response:
        """Metrics for Prometheus."""
        return Response(metrics.text(), media_type=prometheus.MEDIA_TYPE)


async def answered(request: Request, answer: Coroutine[Any, Any, bytes]) -> Response:
    """The response of `answer`, which is cancelled when the client has gone or the time is over."""
    limit = request.app.state.service.limits.request_seconds
    task = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        done, _ = await asyncio.wait({task, gone}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            return Response(task.result(), media_type=MEDIA_TYPE)
        if gone in done:
            return Response(status_code=499)  # nobody reads it; the number is nginx's, for the metrics
        raise ServiceError(
            503, f"no answer within {limit:g} seconds; try again, with fewer inputs", code="timeout",
            headers={"retry-after": str(request.app.state.admission.retry_seconds())},
        )  # fmt: skip
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_reply(error)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = [printable(str(part), 100) for part in first["loc"][1:]]
    param = place[0] if place else None
    match first["type"]:
        case "extra_forbidden":
            message = f"unknown key {shortened(param)}; leave it out"
        case "missing" if param is None:
            message = "the body is empty; expected a JSON object"
        case "missing":
            message = f"the key {shortened(param)} is missing"
        case "item":
            message = str(first["msg"])
        case _:
            message = f"{'.'.join(place)} is {shortened(first.get('input'))}; {first['msg']}"
    return error_reply(ServiceError(400, message, param=param))


async def _failed(_: Request, error: Exception) -> Response:
    """For an error that nobody expected; what it says is for the log alone."""
    LOG.error("a request failed: %s: %s", type(error).__name__, error)
    return error_reply(ServiceError(500, "the server failed to answer; its log says why", code="server_error"))


def _document(app: FastAPI, with_keys: bool) -> dict[str, Any]:
    """The OpenAPI document: FastAPI's, less the 422 that no request gets here."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        for path, operations in document["paths"].items():
            for operation in operations.values():
                operation["responses"].pop("422", None)
                if with_keys and path != "/healthz":
                    operation["security"] = [{"key": []}]
                    operation["responses"]["401"] = operation["responses"]["405"] | {"description": _WORDS[401]}
        schemas = document["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        facts = app.state.service.facts
        for name, example in EXAMPLES.items():
            schemas[name]["properties"]["model"]["enum"] = [facts.name]
            schemas[name]["examples"] = [{"model": facts.name} | example]
        schemas["EmbeddingsRequest"]["properties"]["dimensions"]["enum"] = [facts.info.embedding_dim, None]
        if with_keys:
            document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        app.openapi_schema = document
    return app.openapi_schema
