"""Captions from text, JSON lines and CSV, and one error for each thing that can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from align_calibration.dataset.caption_files import open_captions
from align_runtime.errors import ConfigurationError

TABLE = """\
id,caption
1,a cat
2,"two
lines, ""quoted"", here"

3,é
"""


def captions(folder: Path, name: str, content: str | bytes) -> dict[str, str]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    source = open_captions(path)
    names = {candidate.name for candidate in source.candidates()}
    return {name: content.decode("utf-8", "surrogatepass") for name, content in source.read(names)}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "a cat\r\n\n  \na “dog”, two\nlast", {1: "a cat", 4: "a “dog”, two", 5: "last"}),
        ("a.TXT", "\ufeffa cat\n", {1: "a cat"}),
        ("a.jsonl", '{"caption": "a\\ncat", "text": "x"}\n\n{"id": 1, "text": ""}\n', {1: "a\ncat", 3: ""}),
        ("a.jsonl", '{"text": "\\ud800"}', {1: "\ud800"}),
        ("a.csv", TABLE, {2: "a cat", 4: 'two\nlines, "quoted", here', 6: "é"}),
        ("a.csv", "\ufefftext,url\r\na cat,x\r\n", {2: "a cat"}),
        ("a.csv", "text,caption\nno,yes\n", {2: "yes"}),
        ("a.csv", "caption,url,,\na cat,x,,\n", {2: "a cat"}),  # as spreadsheets write it
    ],
)  # fmt: skip
def test_captions_are_named_after_the_line_they_end_on(
    name: str, content: str, expected: dict[int, str], tmp_path: Path
) -> None:
    assert captions(tmp_path, name, content) == {f"line {number}": text for number, text in expected.items()}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "[]", r"a\.json is not a caption file"),
        ("a.txt", "ok\nä\n".encode("latin-1"), r"line 2 is not UTF-8 text \(byte 0\)"),
        ("a.txt", "a cat\n".encode("utf-16"), "line 1 is not UTF-8"),
        ("a.jsonl", '{"text": "x"}\n{"text": "x"\n', "line 2 is not valid JSON"),
        ("a.jsonl", "[" * 100_000, "line 1 is not valid JSON"),
        ("a.jsonl", '["x"]\n', "line 1: .* got list"),
        ("a.jsonl", '{"title": "x"}\n', "line 1: .* got 'title'$"),
        ("a.jsonl", '{"caption": 3}\n', "line 1: .* 'caption', got int"),
        ("a.csv", "id,title\n1,x\n", "line 1: .* got 'id', 'title'$"),
        ("a.jsonl", json.dumps({"x" * 900: 1}), "got 'xxx"),
        ("a.csv", "id,text\n1\n", "line 2: expected 2 columns .* got 1"),
        ("a.csv", "text,caption,caption\n1,2,3\n", "line 1 has 2 columns 'caption'"),
        ("a.csv", 'text\n"x" y\n', "line 2 is not valid CSV"),
        ("a.csv", 'text\n"never closed\n', "line 2 is not valid CSV"),
    ],
)
def test_malformed_files_are_an_error_that_names_the_line(
    name: str, content: str | bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=message) as error:
        captions(tmp_path, name, content)
    text = str(error.value)
    assert name in text
    assert "\n" not in text
    assert len(text) <= 500


def test_a_missing_file_or_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gone\.txt does not exist"):
        open_captions(tmp_path / "gone.txt")
    with pytest.raises(ConfigurationError, match="is not a file"):
        open_captions(tmp_path)
