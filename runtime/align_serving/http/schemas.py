"""Requests and responses of the service, as its OpenAPI document describes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from align_runtime.foreign_text import shortened
from align_runtime.similarity import DEFAULT_TEMPLATE
from align_serving.http.limits import LARGEST_ITEMS


class Strict(BaseModel):
    """Refuses unknown keys, and values of another JSON type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TextItem(Strict):
    """A text, also one that begins like a data URI."""

    text: str


class ImageItem(Strict):
    """An encoded image: a data URI, base64, or an https URL of a host that the server fetches from."""

    image: str


Item: TypeAlias = str | TextItem | ImageItem


def _checked_input(value: Any) -> Any:
    """Refuses what is not an input, in words that name the place; a union of pydantic's would list all that failed."""
    items = value if isinstance(value, list) else [value]
    _check_length("input", items)
    for index, item in enumerate(items):
        if isinstance(item, str) or (isinstance(item, dict) and _is_item(item)):
            continue
        where = f"input[{index}]" if isinstance(value, list) else "input"
        if type(item) is int or (isinstance(item, list) and all(type(token) is int for token in item)):
            problem = f"{where} is made of token ids, which are not accepted; send the text itself"
        else:
            problem = f'{where} is {shortened(item)}; expected a string, {{"text": "…"}} or {{"image": "…"}}'
        raise _wrong(problem)
    return value


def _checked_labels(value: Any) -> Any:
    if not isinstance(value, list):
        raise _wrong(f"labels is {shortened(value)}; expected a list of strings")
    _check_length("labels", value)
    for index, label in enumerate(value):
        if not isinstance(label, str):
            raise _wrong(f"labels[{index}] is {shortened(label)}; expected a string")
    return value


def _check_length(name: str, items: list[Any]) -> None:
    if not 0 < len(items) <= LARGEST_ITEMS:
        raise _wrong(f"{name} has {len(items)} items; expected at least one, and not that many")


def _wrong(problem: str) -> PydanticCustomError:
    """The error with that message, which pydantic would read as a template."""
    return PydanticCustomError("item", "{problem}", {"problem": problem})


def _is_item(item: dict[str, Any]) -> bool:
    return len(item) == 1 and isinstance(item.get("text", item.get("image")), str)


Input = Annotated[
    Item | Annotated[list[Item], Field(min_length=1)],
    BeforeValidator(_checked_input),
]
Model = Annotated[str, Field(description="A name that /v1/models lists.")]
User = Annotated[str | None, Field(description="Accepted for OpenAI's clients, and not used.")]


class EmbeddingsRequest(Strict):
    """What OpenAI's ``embeddings.create`` sends, and images."""

    model: Model
    input: Annotated[Input, Field(description='A string is a text, or an image if it begins with "data:image/".')]
    encoding_format: Annotated[
        Literal["float", "base64"] | None, Field(description="base64: of little-endian float32 values.")
    ] = None
    dimensions: Annotated[int | None, Field(description="Only the dimension of the model.")] = None
    modality: Annotated[
        Literal["text", "image"] | None,
        Field(description="What strings of input are: texts only, or encoded images only."),
    ] = None
    user: User = None


class ClassifyRequest(Strict):
    """Zero-shot classification of images."""

    model: Model
    input: Annotated[Input, Field(description="Images; a string is an encoded image.")]
    labels: Annotated[list[str], Field(min_length=1), BeforeValidator(_checked_labels)]
    template: Annotated[
        str, Field(description="The text for a label, which takes the place of {}.", pattern=r"\{\}")
    ] = DEFAULT_TEMPLATE
    user: User = None


class Usage(BaseModel):
    """Tokens of the texts, [CLS] and [SEP] included, after truncation; an image has none."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingEntry(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsResponse(BaseModel):
    object: Literal["list"]
    model: str
    data: list[EmbeddingEntry]
    usage: Usage


class Classification(BaseModel):
    """The probabilities of `labels`, in their order, and the most probable one."""

    object: Literal["classification"]
    index: int
    label: str
    probabilities: list[float]


class ClassifyResponse(BaseModel):
    object: Literal["list"]
    model: str
    labels: list[str]
    data: list[Classification]
    usage: Usage


class ModelEntry(BaseModel):
    """A model; all but the first four keys are this service's."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    embedding_dim: int
    max_length: int
    image_size: list[int]
    precision: str
    device: str
    towers: list[str]


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ModelEntry]


class ErrorBody(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    error: ErrorBody


class Health(BaseModel):
    status: Literal["ok"]


_RED_PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)
EXAMPLES: dict[str, dict[str, Any]] = {
    EmbeddingsRequest.__name__: {"input": ["a photo of a cat", {"image": _RED_PIXEL}], "encoding_format": "float"},
    ClassifyRequest.__name__: {"input": [_RED_PIXEL], "labels": ["red square", "white star"]},
}
