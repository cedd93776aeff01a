"""Images in a request: data URIs and base64 to the bytes of a file."""

from __future__ import annotations

import base64
import binascii
import re

from align_runtime.errors import InputError
from align_runtime.foreign_text import shortened

DATA_IMAGE = "data:image/"
_URL = re.compile(r"https?://", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def is_image(text: str) -> bool:
    """Whether a string without a modality is an image: a data URI of one."""
    return text[: len(DATA_IMAGE)].lower() == DATA_IMAGE


def is_url(text: str) -> bool:
    """Whether `text` names an image on a web server."""
    return _URL.match(text) is not None


def image_bytes(text: str) -> bytes:
    """The file in `text`, a data URI in base64, or base64 alone. Its format is told by its content.

    Raises:
        InputError: it is neither.
    """
    encoded = text
    if text[:5].lower() == "data:":
        head, comma, encoded = text.partition(",")
        if not comma or head.rpartition(";")[2].strip().lower() != "base64":
            raise InputError(f"the data URI {shortened(head, 60)} has no base64; expected data:image/…;base64,…")
    elif _SCHEME.match(text[:40]):
        raise InputError(f"the image {shortened(text, 60)} is a URI; expected base64 or data:image/…;base64,…")
    try:
        data = base64.b64decode(encoded.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as reason:
        raise InputError(f"the image {shortened(text, 60)} is not valid base64: {reason}") from None
    if not data:
        raise InputError("the image is empty; expected base64 or data:image/…;base64,…")
    return data
