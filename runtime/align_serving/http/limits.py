"""How much the HTTP service takes from one request and from all that wait."""

from __future__ import annotations

from dataclasses import dataclass, fields

from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import shortened

LARGEST_ITEMS = 1 << 16  # of a request, whatever its limit: what is longer is not even looked at


@dataclass(frozen=True)
class Limits:
    """Bounds of the service; docs/http.md says which status a request beyond each gets.

    Attributes:
        body_bytes: of one request.
        items: texts, images and labels of one request.
        characters: of one text. A tokenizer reads all of them, whatever the model keeps.
        queue_items: texts and images of all requests that wait or are computed.
        queue_bytes: of the bodies of all requests, from their first byte to their answer.
        body_seconds: from the head of a request to the end of its body.
        request_seconds: from the end of the body to the answer.
        head_seconds: from a connection, or the first byte of a further request on it, to the end of the head.
        connections: open at once.

    Raises:
        ConfigurationError: a value is not a positive number, or one request alone would overflow the queue.
    """

    body_bytes: int = 32 << 20
    items: int = 2048
    characters: int = 8192
    queue_items: int = 4096
    queue_bytes: int = 256 << 20
    body_seconds: float = 30.0
    request_seconds: float = 60.0
    head_seconds: float = 10.0
    connections: int = 1024

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kinds = (int,) if field.type == "int" else (int, float)
            if type(value) not in kinds or not 0 < value < 1 << 53:
                raise ConfigurationError(f"{field.name} is {shortened(value)}; expected a positive {field.type}")
        if self.items > LARGEST_ITEMS:
            raise ConfigurationError(f"items is {self.items}; expected at most {LARGEST_ITEMS}")
        for one, all_of_them in (("items", "queue_items"), ("body_bytes", "queue_bytes")):
            if getattr(self, all_of_them) < getattr(self, one):
                raise ConfigurationError(
                    f"{all_of_them} is {getattr(self, all_of_them)}, less than {one} of one request "
                    f"({getattr(self, one)}); raise {all_of_them} or lower {one}"
                )
