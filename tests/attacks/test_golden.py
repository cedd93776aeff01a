"""Golden files that lie: headers, lists and values. Each is an error of one line, before memory is taken for it."""

from __future__ import annotations

import io
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align_runtime import Bundle, BundleError, golden
from align_runtime.commands import inspect, verify
from support.forged_bundles import reseal

FLOAT32 = np.dtype(np.float32)
GOOD = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }"
VALUES = np.ones((2, 2), np.float32).tobytes()


def npy(header: bytes, data: bytes = VALUES, version: bytes = b"\x01\x00", length: int | None = None) -> bytes:
    """A file with `header`, padded as numpy pads it, whose length is told as `length`."""
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(header) if length is None else length) + header + data


def saved(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


HOSTILE = {
    "empty": b"",
    "magic alone": b"\x93NUMPY",
    "unclosed header": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2"),
    "unclosed text": npy(b"{'descr': '<f4, 'fortran_order': False, 'shape': (2, 2), }"),
    "deep brackets": npy(b"(" * 9000),
    "arithmetic": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2**2**99, 2), }"),
    "a long shape": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"1, " * 9000 + b"), }"),
    "a huge size": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"9" * 70 + b", 2), }"),
    "a negative size": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -2), }"),
    "no comma": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (4), }"),
    "Fortran": npy(GOOD.replace(b"False", b"True")),
    "objects": saved(np.array([{"a": 1}], dtype=object), allow_pickle=True),
    "a structure": saved(np.zeros(2, dtype=[("a", "<f4"), ("b", "<f4")])),
    "texts": saved(np.array([["a" * 999] * 2] * 2)),
    "big endian": saved(np.ones((2, 2), ">f4")),
    "doubles": saved(np.ones((2, 2))),
    "version 2": npy(GOOD, version=b"\x02\x00"),
    "version 3": npy(GOOD, version=b"\x03\x00"),
    "a header that goes on behind the file": npy(GOOD, length=60_000),
    "a header that ends early": npy(GOOD, length=20),
    "too few values": npy(GOOD, VALUES[:-1]),
    "too many values": npy(GOOD, VALUES + b"\0"),
    "a zip": b"PK\x03\x04" + bytes(100),
}


def test_the_good_one_is_read(tmp_path: Path) -> None:
    """So that the others fail for their fault alone."""
    for content in (npy(GOOD), saved(np.ones((2, 2), np.float32))):
        (tmp_path / "a.npy").write_bytes(content)
        np.testing.assert_array_equal(golden.read_array(tmp_path / "a.npy", FLOAT32, 2), np.ones((2, 2)))


@pytest.mark.parametrize("name", HOSTILE)
def test_arrays(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(HOSTILE[name])
    with pytest.raises(BundleError, match=r"a\.npy"):
        golden.read_array(tmp_path / "a.npy", FLOAT32, 2)


def test_an_array_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "a.npy").open("wb") as file:
        file.truncate(1 << 40)  # takes no place on the disk
    with pytest.raises(BundleError, match="expected at most"):
        golden.read_array(tmp_path / "a.npy", FLOAT32, 2)
    os.mkfifo(tmp_path / "b.npy")
    with pytest.raises(BundleError, match="regular file"):
        golden.read_array(tmp_path / "b.npy", FLOAT32, 2)


LISTS = {
    "not JSON": "[",
    "deep": "[" * 100_000,
    "an object": "{}",
    "numbers": "[1, 2]",
    "half a surrogate pair": '["a\\ud800"]',
    "a huge number": "[" + "9" * 5000 + "]",
    "none": "[]",
    "one text less": None,
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("file", ["texts.json", "images.json"])
def test_lists(name: str, file: str, bundle_copy: Path) -> None:
    path, content = bundle_copy / "golden" / file, LISTS[name]
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8"))[1:]) if content is None else content)
    reseal(bundle_copy)
    with pytest.raises(BundleError):
        golden.read(Bundle.open(bundle_copy))


@pytest.mark.parametrize("name", ["../align.json", "/etc/passwd", "", ".", "cat.jpg\0", "missing.jpg", "x" * 100_000])
def test_names_of_images(name: str, bundle_copy: Path) -> None:
    path = bundle_copy / "golden" / "images.json"
    path.write_text(json.dumps([name, *json.loads(path.read_text(encoding="utf-8"))[1:]]))
    reseal(bundle_copy)
    with pytest.raises(BundleError) as caught:
        golden.read(Bundle.open(bundle_copy))
    assert len(str(caught.value)) <= 500


def changed(bundle: Path, name: str, change: Any) -> Path:
    path = bundle / "golden" / f"{name}.npy"
    np.save(path, change(np.load(path)))
    reseal(bundle)
    return bundle


VALUES_THAT_ARE_WRONG = {
    "an id beyond the table": ("input_ids", lambda ids: ids + 10**6),
    "a negative id": ("input_ids", lambda ids: ids - 10**6),
    "more tokens than the model takes": ("input_ids", lambda ids: np.tile(ids, (1, 9))),
    "another number of tokens": ("attention_mask", lambda mask: mask[:, :-1]),
    "a mask of other numbers": ("attention_mask", lambda mask: mask * 2),
    "a mask with holes": ("attention_mask", lambda mask: mask[:, ::-1]),
    "images of another size": ("pixels", lambda pixels: pixels[:, :-1]),
    "images without colours": ("pixels", lambda pixels: pixels[..., :1]),
    "one row of pixels less": ("pixels", lambda pixels: pixels[1:]),
    "NaN": ("text_embeds", lambda rows: rows * np.float32(np.nan)),
    "infinity": ("image_embeds", lambda rows: rows * np.float32(np.inf)),
    "zeros": ("image_embeds", lambda rows: rows * 0),
    "not normalized": ("text_embeds", lambda rows: rows * 2),
    "another width": ("text_embeds", lambda rows: rows[:, 1:]),
}


@pytest.mark.parametrize("name", VALUES_THAT_ARE_WRONG)
def test_values(name: str, bundle_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    array, change = VALUES_THAT_ARE_WRONG[name]
    assert verify.main([str(changed(bundle_copy, array, change)), "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["type"] == "BundleError"
    assert f"golden/{array}.npy" in error["message"] or "more tokens" in name


def test_equal_embeddings_of_all_texts_are_no_reference(bundle_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A comparison without the common part needs rows that differ; it fails rather than passing any graph."""
    changed(bundle_copy, "text_embeds", lambda rows: np.repeat(rows[:1], len(rows), axis=0))
    assert verify.main([str(bundle_copy), "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["ok"]


@pytest.mark.parametrize(
    "name", ["onnx/\x1b[2Jgone.onnx", "a\nb", "a\r", "golden/\u202egpj.tac", "\x9b31m", "a\u2028b"]
)
def test_names_with_control_characters_are_no_names_of_files(name: str, bundle_copy: Path) -> None:
    file = bundle_copy / "align.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    values["files"][name] = {"bytes": 0, "sha256": "0" * 64}
    file.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(BundleError, match="not a plain path") as caught:
        Bundle.open(bundle_copy)
    assert str(caught.value).isprintable()
    assert inspect.main([str(bundle_copy)]) == 2
