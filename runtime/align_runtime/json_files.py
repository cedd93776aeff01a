"""Reading JSON files and values that may be wrong: every error names the file, the key and the value."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from align_runtime.errors import AlignError, ConfigurationError
from align_runtime.foreign_text import printable, shortened
from align_runtime.regular_files import read_regular

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
MAX_JSON_BYTES = 64 * 1024 * 1024  # a 30,000-entry tokenizer.json is under 1 MB; a weight index under 1 MB


def read_object(
    path: Path, error: type[AlignError] = ConfigurationError, max_bytes: int | None = None
) -> dict[str, Any]:
    """The JSON object in `path` (UTF-8, with or without a byte-order mark) of at most `max_bytes` (`MAX_JSON_BYTES`).

    Raises:
        `error`: as `read_json`, or not an object.
    """
    value = read_json(path, error, max_bytes)
    if not isinstance(value, dict):
        raise error(f"{path} holds a JSON {type(value).__name__}; expected an object")
    return value


def read_json(path: Path, error: type[AlignError], max_bytes: int | None = None) -> Any:
    """The JSON value in `path` (UTF-8, with or without a byte-order mark).

    Raises:
        `error`: the file is missing, unreadable, not a regular file, too large, not UTF-8, not JSON, or has a text with
            half of a surrogate pair, which no file or terminal takes.
    """
    try:
        text = read_regular(path, max_bytes or MAX_JSON_BYTES, error).decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error(f"{path} is not UTF-8 text (byte {reason.start}); is it really a JSON file?") from None
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        if SURROGATE.search(text):  # written as escapes; two halves are one character
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise error(
            f"{path} has a text with half of a surrogate pair (\\ud800 to \\udfff alone), not Unicode"
        ) from None
    except (ValueError, RecursionError) as reason:
        raise error(f"{path} is not valid JSON: {reason}") from None
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def require(where: str, values: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:
    """`values[key]`, which must be of type `kind`. A bool is not an int; an int is converted where float is asked for.

    Raises:
        ConfigurationError: the key is missing or its value has another type.
    """
    if key not in values:
        raise ConfigurationError(f"{where}: the key {key!r} is missing")
    return of_kind(f"{where}: {key}", values[key], kind)


def of_kind(name: str, value: Any, kind: type | tuple[type, ...]) -> Any:
    """`value`, which must be of type `kind`, as in `require`. A float must be finite (JSON can write 1e999)."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigurationError(f"{name} is {value!r}; expected a finite number")
    if isinstance(value, bool):
        fits = bool in kinds
    elif isinstance(value, int) and float in kinds and int not in kinds:
        return _as_float(name, value)
    else:
        fits = isinstance(value, kinds)
    if not fits:
        wanted = " or ".join(k.__name__ for k in kinds)
        raise ConfigurationError(f"{name} is {shortened(value)} ({type(value).__name__}); expected {wanted}")
    return value


def _as_float(name: str, value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ConfigurationError(f"{name} is an integer of {value.bit_length()} bits, too large for a float") from None


def relative_path(name: str) -> str:
    """`name`, which must be a plain relative path (POSIX separators, no ``..``) that stays inside its folder.

    Characters that cannot be printed (control characters, marks of direction, lone surrogates) are refused.

    Raises:
        ConfigurationError: it is not.
    """
    path = PurePosixPath(name)
    plain = name not in ("", ".") and not path.is_absolute() and str(path) == name and ".." not in path.parts
    if not plain or any(character in name for character in "\\:") or printable(name) != name:
        raise ConfigurationError(f"the path {shortened(name)} is not a plain path inside the bundle")
    return name
