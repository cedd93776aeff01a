"""Reading JSON files and values that may be wrong: every error names the file, the key and the value."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from align_runtime.errors import AlignError, ConfigurationError
from align_runtime.foreign_text import printable, shortened
from align_runtime.regular_files import read_regular

MAX_JSON_BYTES = 64 * 1024 * 1024  # a 30,000-entry tokenizer.json is under 1 MB; a weight index under 1 MB
MAX_JSON_DEPTH = 64  # objects and arrays in each other; a tokenizer.json has 6
MAX_TEXT = 4096  # characters of a text in a manifest: names, versions, reasons
MAX_PATH = 512
MAX_DEPTH = 8  # of values whose form is free, such as the options of an export


def read_object(
    path: Path, error: type[AlignError] = ConfigurationError, max_bytes: int | None = None
) -> dict[str, Any]:
    """The JSON object in `path` (UTF-8, with or without a byte-order mark) of at most `max_bytes` (`MAX_JSON_BYTES`).

    Raises:
        `error`: as `read_json`, or not an object.
    """
    return _object(read_json(path, error, max_bytes), str(path), error)


def read_json(path: Path, error: type[AlignError], max_bytes: int | None = None) -> Any:
    """The JSON value in `path` (UTF-8, with or without a byte-order mark).

    Raises:
        `error`: the file is missing, unreadable, not a regular file, too large, not UTF-8, not JSON, nested too deeply,
            or holds text that is not Unicode.
    """
    return _parsed(read_regular(path, max_bytes or MAX_JSON_BYTES, error), str(path), error)


def parse_object(data: bytes, where: str, error: type[AlignError], *, unique_keys: bool = False) -> dict[str, Any]:
    """As `read_object` for the content of a file, which errors call `where`.

    Args:
        unique_keys: whether an object that has a key twice is an error; otherwise the last one counts.
    """
    return _object(_parsed(data, where, error, _unique if unique_keys else None), where, error)


def _object(value: Any, where: str, error: type[AlignError]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise error(f"{where} holds a JSON {type(value).__name__}; expected an object")
    return value


def _parsed(
    data: bytes,
    where: str,
    error: type[AlignError],
    to_object: Callable[[list[tuple[str, Any]]], dict[str, Any]] | None = None,
) -> Any:
    try:
        value = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant, object_pairs_hook=to_object)
    except UnicodeDecodeError as reason:
        raise error(f"{where} is not UTF-8 text (byte {reason.start}); is it really a JSON file?") from None
    except (ValueError, RecursionError) as reason:
        raise error(f"{where} is not valid JSON: {reason}") from None
    problem = _problem(value)
    if problem:
        raise error(f"{where} {problem}")
    return value


def _problem(root: Any) -> str | None:
    """What is wrong with a JSON value that is legal: nesting that a recursive function (such as `repr`) cannot follow,
    halves of surrogate pairs (``"\\ud800"``), which no file or library takes."""
    level: list[Any] = [root]
    for _ in range(MAX_JSON_DEPTH):
        texts = [value for value in level if isinstance(value, str)]
        texts += [key for value in level if isinstance(value, dict) for key in value]
        for text in texts:
            if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
                return f"holds {shortened(text, 40)}, half of a surrogate pair, which is not Unicode text"
        level = [
            item
            for value in level
            if isinstance(value, dict | list)
            for item in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return None
    return f"nests objects and arrays more than {MAX_JSON_DEPTH} deep"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"the key {shortened(twice, 40)} is there twice")
    return values


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


def check_keys(where: str, values: Mapping[str, Any], keys: Collection[str]) -> None:
    """Raises ConfigurationError unless `values` has exactly `keys`."""
    if set(values) != set(keys):
        missing, unknown = sorted(set(keys) - set(values)), sorted(set(values) - set(keys))
        raise ConfigurationError(f"{where}: missing keys {shortened(missing)}, unknown keys {shortened(unknown[:8])}")


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


def number(where: str, values: Mapping[str, Any], key: str, kind: type, least: float, most: float) -> Any:
    """`values[key]` as in `require`, from `least` to `most`."""
    value = require(where, values, key, kind)
    if not least <= value <= most:
        raise ConfigurationError(f"{where}: {key} is {shortened(value)}; expected {least} to {most}")
    return value


def text(where: str, values: Mapping[str, Any], key: str) -> str:
    """`values[key]`, a text of at most `MAX_TEXT` characters. It may hold any of them: see `foreign_text.printable`."""
    return short_text(f"{where}: {key}", require(where, values, key, str))


def short_text(name: str, value: Any) -> str:
    """`value`, as in `text`."""
    if len(of_kind(name, value, str)) > MAX_TEXT:
        raise ConfigurationError(f"{name} has {len(value)} characters; expected at most {MAX_TEXT}")
    return str(value)


def free_form(name: str, value: Any, depth: int = MAX_DEPTH) -> Any:
    """`value`, whose form is free, after a check of its depth, its texts and that its numbers are finite.

    Raises:
        ConfigurationError: it is nested deeper than `depth`, or holds a long text or a number that is not finite.
    """
    if isinstance(value, dict | list):
        if depth == 0:
            raise ConfigurationError(f"{name} is nested deeper than {MAX_DEPTH} levels")
        keys, inner = (value.keys(), value.values()) if isinstance(value, dict) else ((), value)
        for entry in (*keys, *inner):
            free_form(name, entry, depth - 1)
        return value
    return short_text(name, value) if isinstance(value, str) else of_kind(name, value, (bool, int, float, type(None)))


def relative_path(name: str) -> str:
    """`name`, which must be a plain relative path (POSIX separators, no ``..``) that stays inside its folder.

    Characters that cannot be printed (control characters, marks of direction, lone surrogates) are refused.

    Raises:
        ConfigurationError: it is not, or it has control characters or more than `MAX_PATH` characters.
    """
    path = PurePosixPath(name[: MAX_PATH + 1])
    plain = name not in ("", ".") and not path.is_absolute() and str(path) == name and ".." not in path.parts
    if not plain or any(character in name for character in "\\:") or printable(name) != name:
        raise ConfigurationError(f"the path {shortened(name)} is not a plain path inside the bundle")
    return name
