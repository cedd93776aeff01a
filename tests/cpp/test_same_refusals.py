"""Damaged bundles are refused by both runtimes, or by neither, with the same class of error."""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import align_runtime
from align_runtime.errors import AlignError, BundleError, ConfigurationError
from align_runtime.manifest import MANIFEST_NAME
from attacks.test_bundles import NONSENSE
from runtime.test_bundle import edit
from support.forged_bundles import constant_graph, put_graph
from support.native import NativeModel

NO_PRECISION = "none"  # a valid manifest has none of it: ConfigurationError, and nothing is loaded


def refusal_of(load: Callable[[], Any]) -> type[AlignError] | None:
    try:
        load().__exit__(None, None, None)
    except AlignError as error:
        return type(error) if len(str(error)) <= 500 and str(error).isprintable() else AlignError
    return None


def refusals(library: ctypes.CDLL, bundle: Path, **options: Any) -> list[type[AlignError] | None]:
    """What Python's runtime and the C++ runtime refuse `bundle` with."""
    options = {"threads": 1, "streams": 1, "towers": "vision,text"} | options
    towers = options["towers"].split(",")
    return [
        refusal_of(lambda: align_runtime.load(bundle, **options | {"towers": towers})),
        refusal_of(lambda: NativeModel(library, bundle, **options)),
    ]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside `value`; of a list, of the first item alone."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def changed(manifest: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of `manifest` with `value` at `path`; without the key for `...`."""
    key, *rest = path
    copy = manifest.copy()
    if rest:
        copy[key] = changed(copy[key], tuple(rest), value)
    elif value is ...:
        del copy[key]
    else:
        copy[key] = value
    return copy


VALUES: tuple[Any, ...] = (
    ..., None, True, 0, -1, 1, 2.5, 1 << 63, 1 << 70, 1e-310, -0.0, "", "x", "x" * 5000, "\u202e", "é" * 4096, "../x",
    "a/b", "a//b", "./a", "a/", "fp32\n", [], {}, [1], {"a": 1}, [[[[[[[[[[1]]]]]]]]]],
)  # fmt: skip


def test_every_value_of_the_manifest(library: ctypes.CDLL, bundle_copy: Path) -> None:
    """Each of its values is replaced by others, and each key is left out: thousands of manifests."""
    file = bundle_copy / MANIFEST_NAME
    manifest = json.loads(file.read_text())
    manifest["graphs"][0] |= {"islands": [{"nodes": ["a"], "reasons": ["b"]}], "data": "onnx/text_model.onnx_data"}
    manifest["graphs"][0]["quantization"] = {"scheme": "s", "samples": 1, "speedup": 1.5, "kept": ["a"]}
    manifest["graphs"] = manifest["graphs"][:1]
    manifest["files"] = {name: entry for name, entry in manifest["files"].items() if name.startswith("onnx/")}
    for part in ("files", "tools", "options"):
        manifest["provenance"][part] = dict(itertools.islice(manifest["provenance"][part].items(), 2))
    counts: dict[Any, int] = {}
    for path, value in itertools.product(list(places(manifest)), VALUES):
        file.write_text(json.dumps(changed(manifest, path, value)))
        python, native = refusals(library, bundle_copy, precision=NO_PRECISION, towers="vision")
        assert python == native, (path, str(value)[:40])
        counts[python] = counts.get(python, 0) + 1
    assert counts[BundleError] > 1000
    assert counts[ConfigurationError] > 300


@pytest.mark.parametrize("change", [change for change, _ in NONSENSE], ids=range(len(NONSENSE)))
def test_nonsense(library: ctypes.CDLL, bundle_copy: Path, change: Any) -> None:
    edit(bundle_copy, change)
    assert refusals(library, bundle_copy) == [BundleError, BundleError]


MANIFESTS = {
    "empty": b"",
    "no object": b"[]",
    "a byte-order mark": b"\xef\xbb\xbf{}",
    "no UTF-8": b'{"a": "\xff"}',
    "half of a pair": b'{"a": "\\ud800"}',
    "NaN": b'{"schema_version": NaN}',
    "too deep": b"[" * 100_000,
    "something behind": b"{} {}",
    "a NUL behind": b"{}\0",
    "another version": b'{"schema_version": 5}',
    "a version that is no number": b'{"schema_version": "6"}',
    "too large": b" " * (16 << 20) + b"{}",
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_that_are_none(library: ctypes.CDLL, bundle_copy: Path, name: str) -> None:
    (bundle_copy / MANIFEST_NAME).write_bytes(MANIFESTS[name])
    assert refusals(library, bundle_copy) == [BundleError, BundleError]


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def replaced_by_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def replaced_by_link(file: Path, target: str) -> None:
    file.unlink()
    file.symlink_to(target)


FILES: dict[str, Callable[[Path], object]] = {
    "no folder": shutil.rmtree,
    "no manifest": lambda bundle: (bundle / MANIFEST_NAME).unlink(),
    "manifest is a FIFO": lambda bundle: replaced_by_fifo(bundle / MANIFEST_NAME),
    "manifest is a device": lambda bundle: replaced_by_link(bundle / MANIFEST_NAME, "/dev/zero"),
    "manifest is a folder": lambda bundle: ((bundle / MANIFEST_NAME).unlink(), (bundle / MANIFEST_NAME).mkdir()),
    "graph is missing": lambda bundle: (bundle / "onnx/vision_model.onnx").unlink(),
    "graph is shorter": lambda bundle: os.truncate(bundle / "onnx/vision_model.onnx", 1000),
    "graph is a FIFO": lambda bundle: replaced_by_fifo(bundle / "onnx/vision_model.onnx"),
    "graph links to itself": lambda bundle: replaced_by_link(bundle / "onnx/vision_model.onnx", "vision_model.onnx"),
    "graph links out": lambda bundle: (
        shutil.move(bundle / "onnx/vision_model.onnx", bundle.parent / "outside.onnx"),
        (bundle / "onnx/vision_model.onnx").symlink_to(bundle.parent / "outside.onnx"),
    ),
    "weights are missing": lambda bundle: (bundle / "onnx/text_model.onnx_data").unlink(),
    "tokenizer is missing": lambda bundle: (bundle / "tokenizer.json").unlink(),
    "a byte of the tokenizer is changed": lambda bundle: flip(bundle / "tokenizer.json"),
}


@pytest.mark.parametrize("name", FILES)
def test_damaged_files(library: ctypes.CDLL, bundle_copy: Path, name: str) -> None:
    FILES[name](bundle_copy)
    assert refusals(library, bundle_copy) == [BundleError, BundleError]


@pytest.mark.parametrize("name", ["onnx/vision_model.onnx", "onnx/text_model_cpu.onnx", "onnx/text_model.onnx_data"])
def test_a_changed_byte(library: ctypes.CDLL, bundle_copy: Path, name: str) -> None:
    flip(bundle_copy / name)
    assert refusals(library, bundle_copy, check_hashes=True) == [BundleError, BundleError]


def test_files_that_nobody_uses_may_be_missing(library: ctypes.CDLL, bundle_copy: Path) -> None:
    (bundle_copy / "config.json").unlink()
    assert refusals(library, bundle_copy) == [None, None]


def test_a_pin(library: ctypes.CDLL, tiny_bundle: Path) -> None:
    pin = align_runtime.Bundle.open(tiny_bundle).manifest_sha256
    assert refusals(library, tiny_bundle, manifest_sha256=pin) == [None, None]
    assert refusals(library, tiny_bundle, manifest_sha256="0" * 64) == [BundleError, BundleError]
    assert refusals(library, tiny_bundle, manifest_sha256="abc") == [ConfigurationError, ConfigurationError]


def test_a_snapshot_of_the_hub(library: ctypes.CDLL, tiny_bundle: Path, tmp_path: Path) -> None:
    """Links of a cache into the blobs of the same repository are followed, others are not."""
    snapshot, blobs = tmp_path / "models--a--b/snapshots/c0", tmp_path / "models--a--b/blobs"
    blobs.mkdir(parents=True)
    for index, file in enumerate(path for path in tiny_bundle.rglob("*") if path.is_file()):
        shutil.copy(file, blobs / str(index))
        link = snapshot / file.relative_to(tiny_bundle)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blobs / str(index), link.parent))
    assert refusals(library, snapshot) == [None, None]
    snapshot.parent.rename(tmp_path / "models--a--b/copies")
    assert refusals(library, tmp_path / "models--a--b/copies/c0") == [BundleError, BundleError]


@pytest.mark.parametrize("row", [[0.5] * 96, [float("nan")] * 96, [1.0] + [0.0] * 94])
def test_answers_that_are_no_embeddings(library: ctypes.CDLL, bundle_copy: Path, row: list[float]) -> None:
    put_graph(bundle_copy, "vision", constant_graph("vision", np.array(row, np.float32), (65, 65)))
    image = np.zeros((9, 9, 3), np.uint8)
    with align_runtime.load(bundle_copy) as model, pytest.raises(BundleError):
        model.embed_images([image])
    with NativeModel(library, bundle_copy) as native, pytest.raises(BundleError, match="vision_model.onnx"):
        native.embed_images([image])


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "fp8"},
        {"precision": "int8"},
        {"device": "abacus"},
        {"device": "cpu:1"},
        {"device": "cuda:x"},
        {"device": "cuda", "threads": 2, "streams": 1},
        {"towers": "audio"},
        {"towers": "vision,"},
        {"threads": 1025},
        {"threads": -1},
        {"streams": 1025},
    ],
)
def test_wrong_options(library: ctypes.CDLL, tiny_bundle: Path, options: dict[str, Any]) -> None:
    assert refusals(library, tiny_bundle, **options) == [ConfigurationError, ConfigurationError]
