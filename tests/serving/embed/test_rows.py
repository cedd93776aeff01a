"""Texts and paths in .txt, .jsonl, .csv and Parquet: ids, columns, and rows that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from align_runtime.errors import ConfigurationError, InputError
from align_runtime.image_options import ImageOptions
from align_serving.embed import rows
from align_serving.embed.inputs import InputOptions, open_inputs
from align_serving.embed.rows import Columns


def read(path: Path, kind: Any = None, **columns: Any) -> dict[str, Any]:
    """Contents, or reasons why there are none, by id."""
    (source,) = open_inputs([str(path)], InputOptions(kind, Columns(**columns)))
    found: dict[str, Any] = {}
    for item in source.items():
        try:
            found[item.id] = item.load()
        except InputError as error:
            found[item.id] = error
    return found


def reason(found: Any) -> str:
    assert isinstance(found, InputError), found
    return found.message


def test_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\n  \ntwo \xff\n three, \xc3\xa9")
    found = read(Path("a.txt"))
    assert reason(found.pop("a.txt:4")) == "it is not UTF-8 text (character 4)"
    assert found == {"a.txt:1": "one", "a.txt:5": " three, é"}


def test_a_line_that_is_too_long_does_not_end_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 10)
    path = tmp_path / "a.txt"
    path.write_text("a" * 35 + "\nb\n" + "c" * 10 + "\n" + "d" * 9 + "\n")
    found = list(read(path).values())
    assert [reason(found[0]), found[1], reason(found[2]), found[3]] == [
        "the line has more than 10 bytes", "b", "the line has more than 10 bytes", "d" * 9,
    ]  # fmt: skip


def test_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = ['{"id": 7, "text": "seven"}', '{"text": "no id"}', '{"id": "x", "text": 3}', "[1]", "{", '{"id": true}']
    lines += ['{"id": "y"}', '{"id": "z", "text": "\\ud800"}', "[" * 100_000, '{"caption": "c"}']
    Path("a.jsonl").write_text("\n".join(lines))
    found = read(Path("a.jsonl"))
    assert found.pop("7") == "seven"
    assert found.pop("a.jsonl:2") == "no id"
    assert found.pop("a.jsonl:10") == "c"
    assert reason(found.pop("x")) == "expected a text under 'text', got int"
    assert reason(found.pop("a.jsonl:4")) == "expected a JSON object, got list"
    assert "not valid JSON" in reason(found.pop("a.jsonl:5"))
    assert reason(found.pop("a.jsonl:6")) == "its id is True; expected a text or an integer"
    assert reason(found.pop("y")) == "expected a column 'text' or 'caption', got ['id']; name it with --column"
    assert reason(found.pop("z")) == "it is not UTF-8 text (character 0)"
    assert "not valid JSON" in reason(found.pop("a.jsonl:9"))
    assert found == {}
    assert "there is no 'key'" in reason(read(Path("a.jsonl"), id="key")["a.jsonl:1"])


def test_a_table(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,caption,more\n1,"two\nlines",x\n2,short\n3,"no" end,x\n4,last,x\n,empty id,x\n')
    found = read(path)
    assert found.pop("1") == "two\nlines"
    assert found.pop("4") == "last"
    assert [reason(error) for error in found.values()] == [
        "expected 3 columns as in the first row, got 2",
        "it is not valid CSV: ',' expected after '\"'; check the quotes",
        "its id is ''; expected a text or an integer",
    ]
    assert list(read(path, value="more", id="caption")) == ["two\nlines", f"{path}:4", f"{path}:5", "last", "empty id"]


@pytest.mark.parametrize(
    ("header", "options", "message"),
    [
        ("a,b", {}, "expected a column 'text' or 'caption', got ['a', 'b']; name it with --column"),
        ("a,b", {"value": "c"}, "expected a column 'c', got"),
        ("text,text", {}, "has the column 'text' more than once; keep one"),
        ("text,b", {"id": "c"}, "there is no 'c' to take the id from; its columns are ['text', 'b']"),
    ],
)
def test_a_table_without_the_column(header: str, options: dict[str, str], message: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{header}\n1,2\n")
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path / "a.csv", **options)
    assert message in str(caught.value)


def test_paths_of_images_are_relative_to_their_file_and_urls_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a.png\n../b.png\n/c.png\nhttps://example.org/d.png\n")
    found = read(path, "images")
    assert reason(found.pop("https://example.org/d.png")) == "it is a URL; download it, nothing is fetched"
    assert found == {"a.png": tmp_path / "a.png", "../b.png": tmp_path / "../b.png", "/c.png": Path("/c.png")}


def test_parquet_of_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"id": [1, 2, None], "text": ["one", None, "three"], "n": [1, 2, 3]})
    pq.write_table(table, path, row_group_size=2)
    found = read(path)
    assert found.pop("1") == "one"
    assert reason(found.pop("2")) == "the value is null"
    assert reason(found.pop(f"{path}:3")) == "its id is None; expected a text or an integer"
    assert found == {}
    words = pa.array(["a", "b", "a"]).dictionary_encode()
    pq.write_table(pa.table({"caption": words}), path)
    assert list(read(path).values()) == ["a", "b", "a"]
    pq.write_table(table, path)
    with pytest.raises(ConfigurationError, match="the column 'n' has the type int64; expected strings, binary"):
        read(path, value="n")
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(ConfigurationError, match=r"expected a column 'text' or .* got \['x'\]"):
        read(path)


def test_parquet_of_images(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    structures = [
        {"bytes": b"one", "path": "1.png"},
        {"bytes": None, "path": "2.png"},
        None,
        {"bytes": b"4", "path": None},
    ]
    pq.write_table(pa.table({"image": structures}), path)
    found = read(path)
    assert found.pop("1.png") == b"one"
    assert found.pop(f"{path}:4") == b"4"
    assert {name: reason(error) for name, error in found.items()} == {
        "2.png": "the value is null", f"{path}:3": "the value is null",
    }  # fmt: skip
    pq.write_table(pa.table({"file": [b"bytes"], "id": ["mine"]}), path)
    assert read(path) == {"mine": b"bytes"}
    pq.write_table(pa.table({"path": ["b.png"]}), path)
    assert read(path) == {"b.png": tmp_path / "b.png"}
    pq.write_table(pa.table({"text": [b"bytes"]}), path)
    with pytest.raises(ConfigurationError, match="has the type binary; expected strings; name another"):
        read(path, "texts")


def test_parquet_bounds_images(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [bytes(17 << 20), b"x"]}), tmp_path / "a.parquet")
    (source,) = open_inputs([str(tmp_path / "a.parquet")], InputOptions(images=ImageOptions(max_pixels=1)))
    large, small = source.items()
    assert small.load() == b"x"
    with pytest.raises(InputError, match="it has 17825792 bytes; expected at most 16777224"):
        large.load()


def test_a_file_that_is_not_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ConfigurationError, match=r"cannot read the Parquet file .*a\.parquet"):
        read(tmp_path / "a.parquet")
