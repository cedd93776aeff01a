"""Reading JSON: what is accepted, and the errors for everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from align_runtime import json_files
from align_runtime.errors import BundleError, ConfigurationError
from align_runtime.json_files import of_kind, parse_object, read_object, relative_path, require


def test_both_halves_of_a_pair_are_one_character(tmp_path: Path) -> None:
    path = written(tmp_path, rb'{"a": "\ud83d\ude00", "b": "\\ud800"}')
    assert read_object(path) == {"a": "\U0001f600", "b": r"\ud800"}


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
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"a": 1', "not valid JSON"),
        (b"hello", "not valid JSON"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (rb'{"a": "b\ud800c"}', "half of a surrogate pair"),
        (rb'{"\uDFFF": [1]}', "half of a surrogate pair"),
        (rb'{"a": ["\udc00\ud800"]}', "half of a surrogate pair"),
        (b"[1]", "JSON list"),
        (b"3", "JSON int"),
        (b'{"a": "\xff"}', r"not UTF-8 text \(byte 7\)"),
        ('{"a": 1}'.encode("utf-16"), r"not UTF-8 text \(byte 0\)"),
    ],
)
def test_files_without_a_json_object(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"file\.json .*{message}") as caught:
        read_object(written(tmp_path, data))
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError, match="does not exist"):
        read_object(tmp_path / "absent.json", BundleError)
    with pytest.raises(BundleError, match="is not a regular file"):
        read_object(tmp_path, BundleError)
    monkeypatch.setattr(json_files, "MAX_JSON_BYTES", 9)
    assert read_object(written(tmp_path, b'{"a": 12}')) == {"a": 12}
    with pytest.raises(ConfigurationError, match="10 bytes"):
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
        (True, int, r"True \(bool\); expected int"),
        (True, float, r"True \(bool\); expected float"),
        (1, bool, r"1 \(int\); expected bool"),
        (1.0, int, r"1\.0 \(float\); expected int"),
        ("1", (int, float), r"'1' \(str\); expected int or float"),
        (None, dict, r"None \(NoneType\); expected dict"),
        (float("nan"), float, "nan; expected a finite"),
        (float("-inf"), (int, float), "-inf; expected a finite"),
        (10**400, float, "1329 bits"),
        ("x" * 500, int, r"'x{99}…"),
    ],
)
def test_a_value_of_another_kind(value: Any, kind: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^file: key is .*{message}"):
        require("file", {"key": value}, "key", kind)
    with pytest.raises(ConfigurationError, match=f"^name is .*{message}"):
        of_kind("name", value, kind)


def test_a_missing_key() -> None:
    with pytest.raises(ConfigurationError, match="'key' is missing"):
        require("file", {}, "key", int)


@pytest.mark.parametrize("name", ["align.json", "onnx/text_model.onnx", "a/b/c", "..a", "a b", "ü"])
def test_plain_relative_paths(name: str) -> None:
    assert relative_path(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../a", "a/../b", "/a", "a/", "./a", "a//b", "a\\b", "c:a", "a\0b", "x" * 999 + "/"]
)
def test_paths_that_are_not_plain(name: str) -> None:
    with pytest.raises(ConfigurationError, match="not a plain path") as caught:
        relative_path(name)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": ' * 65 + "1" + "}" * 65, "nests objects and arrays more than 64 deep"),
        ('{"a": ' + "[" * 300 + "]" * 300 + "}", "nests objects and arrays more than 64 deep"),
        ('{"a": ["\\ud800"]}', r"holds '\ud800', half of a surrogate pair"),
        ('{"a": {"b\\udfff": 1}}', r"holds 'b\udfff', half of a surrogate pair"),
    ],
)
def test_legal_json_that_nothing_can_use(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text(content)
    with pytest.raises(ConfigurationError) as caught:
        read_object(tmp_path / "file.json")
    assert message in str(caught.value)


def test_what_is_nested_and_what_is_not_latin_is_read(tmp_path: Path) -> None:
    content = '{"a": ' * 63 + '"\\ud83d\\ude00 中文"' + "}" * 63
    (tmp_path / "file.json").write_text(content, encoding="utf-8")
    value: Any = read_object(tmp_path / "file.json")
    for _ in range(63):
        value = value["a"]
    assert value == "😀 中文"


@pytest.mark.parametrize("data", [b'{"a": 1, "b": 2, "a": 3}', b'{"a": [{"b": 1, "b": 1}]}'])
def test_a_key_twice_is_an_error_where_keys_are_unique(data: bytes) -> None:
    with pytest.raises(ConfigurationError, match="is there twice"):
        parse_object(data, "the file", ConfigurationError, unique_keys=True)
    values = parse_object(b'{"a": {"b": 1}, "b": 2}', "the file", ConfigurationError, unique_keys=True)
    assert values == {"a": {"b": 1}, "b": 2}


def test_the_last_of_two_keys_counts_elsewhere() -> None:
    assert parse_object(b'{"a": 1, "a": 2}', "x", ConfigurationError) == {"a": 2}
