"""Captions from text, JSON lines and tables, and one clear error for each thing that can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from align_calibration.dataset.caption_file import open_captions
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
def test_captions_and_the_lines_they_end_on(name: str, content: str, expected: dict[int, str], tmp_path: Path) -> None:
    assert captions(tmp_path, name, content) == {f"line {number}": text for number, text in expected.items()}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "[]", r"a\.json is no caption file; known are \.txt .*, \.jsonl .* and \.csv"),
        ("a.txt", "ok\nä\n".encode("latin-1"), r"a\.txt, line 2 is not UTF-8 text \(byte 0\)"),
        ("a.txt", "a cat\n".encode("utf-16"), r"a\.txt, line 1 is not UTF-8 text"),
        ("a.jsonl", '{"text": "x"}\n{"text": "x"\n', r"a\.jsonl, line 2 is not valid JSON: .*; one object a line"),
        ("a.jsonl", "[" * 100_000, r"a\.jsonl, line 1 is not valid JSON"),
        ("a.jsonl", '["x"]\n', r"a\.jsonl, line 1 holds a JSON list; an object was expected"),
        ("a.jsonl", '{"title": "x"}\n', r"line 1 names no 'caption' or 'text'; it names 'title'$"),
        ("a.jsonl", '{"caption": 3}\n', r"line 1: the caption is a int; a text was expected"),
        ("a.csv", "id,title\n1,x\n", r"a\.csv, line 1 names no 'caption' or 'text'; it names 'id', 'title'$"),
        ("a.csv", "id,text\n1\n", r"a\.csv, line 2 has 1 columns; the heading has 2"),
        ("a.csv", "text,caption,caption\n1,2,3\n", r"a\.csv, line 1 names 'caption' 2 times"),
        ("a.csv", 'text\n"x" y\n', r"a\.csv, line 2 is not valid CSV"),
        ("a.csv", 'text\n"never closed\n', r"a\.csv, line 2 is not valid CSV"),
    ],
)
def test_what_is_wrong_is_said(name: str, content: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message) as error:
        captions(tmp_path, name, content)
    assert "\n" not in str(error.value)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gone\.txt does not exist; name a caption file"):
        open_captions(tmp_path / "gone.txt")
    with pytest.raises(ConfigurationError, match="is no file; name a caption file"):
        open_captions(tmp_path)
