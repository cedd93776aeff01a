"""JSON files and values from outside, read so that a bad one is named exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from align_runtime.errors import AlignError, ConfigurationError

MAX_INTEGER_AS_FLOAT = 1 << 53  # beyond it an integer is not exactly a float, far beyond it none at all
MAX_JSON_BYTES = 64 * 1024 * 1024  # a 30,000-entry tokenizer.json is under 1 MB; a weight index under 1 MB


def read_object(path: Path, error: type[AlignError] = ConfigurationError) -> dict[str, Any]:
    """The JSON object in `path` (UTF-8, with or without a byte-order mark).

    Raises:
        `error`: the file is missing, unreadable, too large, not UTF-8, not JSON, or not an object.
    """
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise error(f"{path} is {size} bytes; a JSON file of at most {MAX_JSON_BYTES} bytes was expected")
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise error(f"{path} does not exist") from None
    except OSError as reason:
        raise error(f"{path} cannot be read: {reason.strerror}") from None
    except UnicodeDecodeError as reason:
        raise error(f"{path} is not UTF-8 text (byte {reason.start}); is it really a JSON file?") from None
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as reason:
        raise error(f"{path} is not valid JSON: {reason}") from None
    if not isinstance(value, dict):
        raise error(f"{path} holds a JSON {type(value).__name__}, an object was expected")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def require(where: str, values: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:
    """`values[key]`, of type `kind` (bool is never an int, an int is accepted where float is asked for).

    Raises:
        ConfigurationError: the key is missing or its value has another type.
    """
    if key not in values:
        raise ConfigurationError(f"{where}: the key {key!r} is missing")
    return of_kind(f"{where}: {key}", values[key], kind)


def of_kind(name: str, value: Any, kind: type | tuple[type, ...]) -> Any:
    """`value` if it is of type `kind`, as in `require`."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if isinstance(value, bool):
        fits = bool in kinds
    elif isinstance(value, int) and float in kinds and int not in kinds:
        if abs(value) > MAX_INTEGER_AS_FLOAT:
            raise ConfigurationError(f"{name} is an integer of {len(str(value))} characters; a number was expected")
        return float(value)
    else:
        fits = isinstance(value, kinds)
    if not fits:
        wanted = " or ".join(k.__name__ for k in kinds)
        raise ConfigurationError(f"{name} is {value!r} ({type(value).__name__}); {wanted} was expected")
    return value
