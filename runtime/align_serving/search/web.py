"""The paths of ``align-search serve``: one page, ``/v1/search``, and thumbnails, beside those of `align_serving.http`.

A client names folders and rows by their numbers, never a path. Answers forbid the page to load anything from elsewhere,
and other sites to use it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Request, Response
from pydantic import Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from align_runtime.errors import InputError
from align_serving.http.application import POST_ERRORS, answered, error_responses
from align_serving.http.error_replies import ServiceError, error_reply
from align_serving.http.schemas import ImageItem, Strict, TextItem
from align_serving.http.service import Service
from align_serving.search.index import Hit, Index
from align_serving.search.thumbnails import Thumbnails

MAX_TOP = 200
THREADS = 2  # that search and make thumbnails
PAGE = {"/": ("search.html", "text/html"), "/search.css": ("search.css", "text/css"),
        "/search.js": ("search.js", "text/javascript")}  # needs no API key: it asks for one  # fmt: skip
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class LikeRow(Strict):
    """A row as the query."""

    folder: Annotated[int, Field(ge=0)]
    row: Annotated[int, Field(ge=0)]


class SearchRequest(Strict):
    """What is near to `input`, a text or an image, or to the row `like`."""

    input: Annotated[
        str | TextItem | ImageItem | None, Field(description="A string is a text, or an image if a data URI.")
    ] = None
    like: LikeRow | None = None
    folder: Annotated[int, Field(ge=0, description="Number of the folder of embeddings, see /v1/folders.")] = 0
    top: Annotated[int, Field(ge=1, le=MAX_TOP)] = 24


class SearchPage:
    """The paths around `indexes`, which are numbered in their order."""

    def __init__(self, indexes: Sequence[Index], thumbnails: Thumbnails, service: Service) -> None:
        self._indexes = indexes
        self._thumbnails = thumbnails
        self._service = service
        self._threads = ThreadPoolExecutor(THREADS, "align-search")

    def add_to(self, app: FastAPI, local_names: Sequence[str] | None) -> None:
        """Adds the paths; with `local_names` a request must have asked for one of these hosts."""
        app.add_middleware(_Guarded, local_names=local_names)
        for path, (name, kind) in PAGE.items():
            content = files(__package__).joinpath("page", name).read_bytes()
            app.add_api_route(path, _static(content, kind), include_in_schema=False)

        @app.post("/v1/search", responses=POST_ERRORS)
        async def search(body: SearchRequest, request: Request) -> Response:
            """The nearest rows of a folder of embeddings."""
            return await answered(request, self._search(body, request.ticket))  # type: ignore[attr-defined]

        @app.get("/v1/folders", responses=error_responses(405))
        async def folders() -> Any:
            """The folders of embeddings."""
            return {"object": "list", "data": [_described(index) for index in self._indexes]}

        @app.get("/thumbnails/{folder:int}/{row:int}", include_in_schema=False)
        async def thumbnail(folder: int, row: int) -> Response:
            index = self._index(folder)
            if index.kind != "images" or row >= len(index):
                raise ServiceError(404, f"folder {folder} has no image {row}", code="not_found")
            try:
                data = await self._threaded(self._thumbnails.of, index, row)
            except InputError as reason:
                raise ServiceError(404, reason.message, code="no_image") from None
            return Response(data, media_type="image/jpeg", headers={"cache-control": "private, max-age=600"})

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def _search(self, body: SearchRequest, ticket: Any) -> bytes:
        index = self._index(body.folder)
        if (body.input is None) == (body.like is None):
            raise ServiceError(400, "expected input or like, and one of them alone", param="input")
        if body.like is not None:
            other = self._index(body.like.folder)
            if body.like.row >= len(other):
                raise ServiceError(400, f"like.row is {body.like.row}; expected fewer than {len(other)}", param="like")
            query = other.row(body.like.row)
        else:
            query = (await self._service.embedding(body.input, ticket))[None]  # type: ignore[arg-type]
        hits = (await self._threaded(index.search, np.ascontiguousarray(query), body.top))[0]
        data = [_entry(index, body.folder, hit, rank) for rank, hit in enumerate(hits, start=1)]
        return json.dumps({"object": "list", "data": data, "rows": len(index)}).encode()

    def _index(self, number: int) -> Index:
        if number >= len(self._indexes):
            raise ServiceError(404, f"folder {number} does not exist; /v1/folders lists them", code="not_found")
        return self._indexes[number]

    async def _threaded(self, call: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)


def _static(content: bytes, kind: str) -> Any:
    async def answer() -> Response:
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    return answer


def _described(index: Index) -> dict[str, Any]:
    facts = index.facts
    return {
        "name": index.stored.folder.name,
        "kind": index.kind,
        "rows": facts.rows,
        "index": facts.kind,
        "recall": facts.recall,
        "shown": facts.shown,
        "problem": facts.problem,
    }


def _entry(index: Index, folder: int, hit: Hit, rank: int) -> dict[str, Any]:
    entry = {"rank": rank, "row": hit.row, "id": hit.id, "score": round(hit.score, 6)}
    if index.kind == "texts":
        return entry | {"text": hit.source}
    return entry | {"thumbnail": f"/thumbnails/{folder}/{hit.row}"}


class _Guarded:
    """Adds `HEADERS`, and refuses requests for another host, which a page of a stranger whose name leads here sends."""

    def __init__(self, app: ASGIApp, local_names: Sequence[str] | None) -> None:
        self._app = app
        self._names = local_names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        host = Headers(scope=scope).get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
        if self._names is not None and name.strip("[]").lower() not in self._names:
            refused = ServiceError(400, "the request is for another host; open the page by its own address")
            await error_reply(refused)(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)
