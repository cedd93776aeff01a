"""What the service answers: requests that were checked in, bytes of JSON out. Knows neither FastAPI nor Ray."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from align_runtime.errors import ConfigurationError, InputError
from align_runtime.foreign_text import shortened
from align_runtime.model_info import ModelInfo
from align_runtime.similarity import captions, logits, softmax
from align_serving.http.admission import Ticket
from align_serving.http.batching import Batched
from align_serving.http.error_replies import ServiceError
from align_serving.http.fetching import Fetcher, FetchOptions
from align_serving.http.image_data import image_bytes, is_image, is_url
from align_serving.http.limits import Limits
from align_serving.http.schemas import ClassifyRequest, EmbeddingsRequest, ImageItem, Item, TextItem
from align_serving.http.towers import Result, Row

FETCHES = 8  # images that are fetched at once
INLINE_ROWS = 64  # more are written in a thread: 2,048 rows of 640 numbers take half a second


@dataclass(frozen=True)
class Facts:
    """What the service says about its model."""

    name: str
    created: int  # seconds since 1970, of the bundle
    info: ModelInfo

    def to_json(self) -> dict[str, Any]:
        """An entry of ``/v1/models``."""
        info = self.info
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "align-onnx",
            "embedding_dim": info.embedding_dim,
            "max_length": info.max_length,
            "image_size": list(info.image_size),
            "precision": info.precision,
            "device": info.device,
            "towers": list(info.towers),
        }


@dataclass
class Inputs:
    """Texts, and encoded images or URLs of them, with their places in the request."""

    texts: dict[int, str] = field(default_factory=dict)
    images: dict[int, str] = field(default_factory=dict)


class Service:
    """Answers requests with a model behind `texts` and `images`, which batch across requests."""

    def __init__(
        self,
        facts: Facts,
        texts: Batched[str, Result],
        images: Batched[bytes, Result],
        limits: Limits,
        fetch: FetchOptions,
    ) -> None:
        self.facts = facts
        self.limits = limits
        self._texts = texts
        self._images = images
        self._fetcher = Fetcher(fetch)
        self._fetches = asyncio.Semaphore(FETCHES)

    async def embeddings(self, request: EmbeddingsRequest, ticket: Ticket) -> bytes:
        """The JSON of an `EmbeddingsResponse`.

        Raises:
            ServiceError: 400, 404 or 429.
        """
        dim = self.facts.info.embedding_dim
        self.check_model(request.model)
        if request.dimensions not in (None, dim):
            raise ServiceError(
                400, f"dimensions is {request.dimensions}; this model has {dim} and no smaller ones", param="dimensions"
            )
        inputs = self._sorted_inputs(request.input, request.modality)
        ticket.add_items(len(inputs.texts) + len(inputs.images))
        rows = await self._embedded(inputs, "input", ticket)
        answer = partial(_embeddings_json, rows, self.facts.name, request.encoding_format == "base64")
        return answer() if len(rows) <= INLINE_ROWS else await asyncio.to_thread(answer)

    async def classify(self, request: ClassifyRequest, ticket: Ticket) -> bytes:
        """The JSON of a `ClassifyResponse`.

        Raises:
            ServiceError: 400, 404 or 429.
        """
        self.check_model(request.model)
        images = self._sorted_inputs(request.input, "image")
        if images.texts:
            raise ServiceError(400, f"input[{min(images.texts)}] is a text; only images are classified", param="input")
        try:
            texts = captions(request.labels, request.template)
        except ConfigurationError as error:
            raise ServiceError(400, str(error), param="template") from None
        labels = Inputs(texts=dict(enumerate(texts)))
        self._check_counts(len(images.images) + len(texts), labels, "labels")
        ticket.add_items(len(images.images) + len(texts))
        label_rows, image_rows = await asyncio.gather(
            self._embedded(labels, "labels", ticket), self._embedded(images, "input", ticket)
        )
        info = self.facts.info
        scores = softmax(logits(_stacked(image_rows), _stacked(label_rows), info.embedding_dim, info.temperature))
        entries = [
            f'{{"object":"classification","index":{index},"label":{json.dumps(request.labels[int(row.argmax())])},'
            f'"probabilities":[{_numbers(row)}]}}'
            for index, row in enumerate(scores)
        ]
        return _list_json(entries, {"model": self.facts.name, "labels": request.labels, "usage": _usage(label_rows)})

    async def embedding(self, item: Item, ticket: Ticket) -> NDArray[np.float32]:
        """The embedding of one text or image, float32 (dim,).

        Raises:
            ServiceError: 400 or 429.
        """
        inputs = self._sorted_inputs(item, None)
        ticket.add_items(1)
        (row,) = await self._embedded(inputs, "input", ticket)
        return row.embedding

    def check_model(self, name: str) -> None:
        """Raises ServiceError 404 unless `name` is the model's."""
        if name != self.facts.name:
            raise ServiceError(
                404,
                f"the model {shortened(name)} does not exist; this server has {self.facts.name}",
                param="model",
                code="model_not_found",
            )

    def _sorted_inputs(self, given: Item | Sequence[Item], modality: str | None) -> Inputs:
        items: Iterable[Item] = [given] if isinstance(given, str | TextItem | ImageItem) else given
        inputs = Inputs()
        for index, item in enumerate(items):
            if isinstance(item, ImageItem):
                inputs.images[index] = item.image
            elif isinstance(item, TextItem):
                inputs.texts[index] = item.text
            elif modality == "image" or (modality is None and is_image(item)):
                inputs.images[index] = item
            else:
                inputs.texts[index] = item
        self._check_counts(len(inputs.texts) + len(inputs.images), inputs, "input")
        for tower, used in (("text", inputs.texts), ("vision", inputs.images)):
            if used and tower not in self.facts.info.towers:
                raise ServiceError(
                    400, f"input[{min(used)}] needs the {tower} tower, which this server has not loaded", param="input"
                )
        return inputs

    def _check_counts(self, count: int, inputs: Inputs, param: str) -> None:
        limits = self.limits
        if count > limits.items:
            raise ServiceError(
                400, f"{param} has {count} items; expected at most {limits.items} in a request", param=param
            )
        for index, text in inputs.texts.items():
            if len(text) > limits.characters:
                raise ServiceError(
                    400,
                    f"{param}[{index}] has {len(text)} characters; expected at most {limits.characters}",
                    param=param,
                )

    async def _embedded(self, inputs: Inputs, param: str, ticket: Ticket) -> list[Row]:
        """The rows of `inputs` in their order, or ServiceError for the first that has none."""
        images = [await self._image(text, index, param, ticket) for index, text in inputs.images.items()]
        by_kind = await asyncio.gather(self._texts(list(inputs.texts.values())), self._images(images))
        found = dict(zip([*inputs.texts, *inputs.images], [*by_kind[0], *by_kind[1]], strict=True))
        rows = []
        for index in sorted(found):
            result = found[index]
            if isinstance(result, InputError):
                _refuse(result, index, param)
            rows.append(result)
        return rows

    async def _image(self, text: str, index: int, param: str, ticket: Ticket) -> bytes:
        try:
            if not is_url(text):
                return image_bytes(text)
            async with self._fetches:
                fetched = await asyncio.to_thread(self._fetcher.fetch, text)
            ticket.add_bytes(len(fetched))
            return fetched
        except InputError as error:
            _refuse(error, index, param)


def _refuse(error: InputError, index: int, param: str) -> NoReturn:
    raise ServiceError(400, f"{param}[{index}]: {error.message}", param=param, code="invalid_input") from None


def _embeddings_json(rows: Sequence[Row], name: str, as_base64: bool) -> bytes:
    entries = [
        f'{{"object":"embedding","index":{index},"embedding":{_encoded(row.embedding, as_base64)}}}'
        for index, row in enumerate(rows)
    ]
    return _list_json(entries, {"model": name, "usage": _usage(rows)})


def _encoded(row: NDArray[np.float32], as_base64: bool) -> str:
    if as_base64:
        return f'"{base64.b64encode(row.astype("<f4").tobytes()).decode("ascii")}"'
    return f"[{_numbers(row)}]"


def _numbers(row: NDArray[np.float32]) -> str:
    """The values of `row` with 9 digits, which give back the same float32."""
    return ",".join(["%.9g"] * len(row)) % tuple(row.tolist())


def _stacked(rows: Sequence[Row]) -> NDArray[np.float32]:
    return np.stack([row.embedding for row in rows])


def _usage(rows: Sequence[Row]) -> dict[str, int]:
    tokens = sum(row.tokens for row in rows)
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def _list_json(entries: Sequence[str], rest: dict[str, Any]) -> bytes:
    tail = json.dumps(rest)[1:]
    return f'{{"object":"list","data":[{",".join(entries)}],{tail}'.encode()
