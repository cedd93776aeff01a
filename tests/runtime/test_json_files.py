"""Values from outside: what is read, and how each bad one is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from align_runtime import json_files
from align_runtime.errors import BundleError, ConfigurationError
from align_runtime.json_files import of_kind, read_object, require


def written(folder: Path, data: bytes) -> Path:
    path = folder / "file.json"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte-order mark"])
def test_an_object_is_read(tmp_path: Path, mark: bytes) -> None:
    path = written(tmp_path, mark + '{"a": [1, 2.5, null, "é"]}'.encode())
    assert read_object(path) == {"a": [1, 2.5, None, "é"]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"is not valid JSON: Expecting value"),
        (b"{", r"is not valid JSON: Expecting property name"),
        (b'{"a": 1', r"is not valid JSON: Expecting ',' delimiter"),
        (b"hello", r"is not valid JSON"),
        (b'{"a": NaN}', r"is not valid JSON: NaN is not a JSON number"),
        (b'{"a": -Infinity}', r"is not valid JSON: -Infinity is not a JSON number"),
        (b'{"a": ' + b"1" * 5000 + b"}", r"is not valid JSON: Exceeds the limit"),
        (b"[" * 100_000, r"is not valid JSON"),
        (b"[1]", r"holds a JSON list, an object was expected"),
        (b"3", r"holds a JSON int, an object was expected"),
        (b'{"a": "\xff"}', r"is not UTF-8 text \(byte 7\); is it really a JSON file\?"),
        ('{"a": 1}'.encode("utf-16"), r"is not UTF-8 text \(byte 0\)"),
    ],
)
def test_what_is_no_json_object(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"file\.json {message}") as caught:
        read_object(written(tmp_path, data))
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError, match=r"absent\.json does not exist"):
        read_object(tmp_path / "absent.json", BundleError)
    with pytest.raises(BundleError, match=r"cannot be read: Is a directory"):
        read_object(tmp_path, BundleError)
    monkeypatch.setattr(json_files, "MAX_JSON_BYTES", 9)
    assert read_object(written(tmp_path, b'{"a": 12}')) == {"a": 12}
    with pytest.raises(ConfigurationError, match=r"is 10 bytes; a JSON file of at most 9 bytes was expected"):
        read_object(written(tmp_path, b'{"a": 123}'))


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (1, int, 1),
        (1, float, 1.0),
        (1.5, float, 1.5),
        (True, bool, True),
        ("", str, ""),
        (None, (int, type(None)), None),
    ],
)
def test_a_value_of_the_kind_asked_for(value: Any, kind: Any, expected: Any) -> None:
    read = require("file", {"key": value}, "key", kind)
    assert read == expected
    assert type(read) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (True, int, r"is True \(bool\); int was expected"),
        (True, float, r"is True \(bool\); float was expected"),
        (1, bool, r"is 1 \(int\); bool was expected"),
        (1.0, int, r"is 1\.0 \(float\); int was expected"),
        ("1", (int, float), r"is '1' \(str\); int or float was expected"),
        (None, dict, r"is None \(NoneType\); dict was expected"),
        (float("nan"), float, r"is nan; a finite number was expected"),
        (float("-inf"), (int, float), r"is -inf; a finite number was expected"),
        (10**400, float, r"is an integer of 1329 bits; no float holds it"),
    ],
)
def test_a_value_of_another_kind(value: Any, kind: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^file: key {message}"):
        require("file", {"key": value}, "key", kind)
    with pytest.raises(ConfigurationError, match=f"^name {message}"):
        of_kind("name", value, kind)


def test_a_missing_key() -> None:
    with pytest.raises(ConfigurationError, match=r"^file: the key 'key' is missing$"):
        require("file", {}, "key", int)
