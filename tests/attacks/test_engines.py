"""Engines of a stranger: descriptions that cannot be read or lie, links, and an old bundle in an export."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from align_exporter.command import main as export
from align_runtime.bundle import Bundle
from align_runtime.bundle_writing import inventory
from align_runtime.commands import inspect
from align_runtime.engine_choice import choose_engine
from align_runtime.engine_files import MAX_TIMINGS_BYTES, keep_engines, put_file, read_timings
from align_runtime.engine_targets import TENSORRT, Machine
from align_runtime.engines import ENGINE_SCHEMA, MAX_ENGINES, EngineEntry, read_engines, read_plan
from align_runtime.errors import BackendUnavailableError, BuildError, BundleError

MACHINE = Machine(gpu="NVIDIA Double 80GB", compute_capability="9.0", driver="13.0", tensorrt="11.4.0.106")
OPTIONS = {
    "level": 3,
    "workspace": None,
    "hardware": "this",
    "version_compatible": False,
    "without_lean_runtime": False,
    "ranges": False,
}
NAME = "vision_fp32.double"
SECRET = b"not for the bundle"


def describe(bundle: Path, name: str = NAME, plan: bytes = b"a plan", **changes: Any) -> Path:
    """Writes a plan and its description into `bundle`, which follows all rules but for `changes`."""
    manifest = Bundle.open(bundle).manifest
    graph = manifest.graphs[0]
    values = {
        "schema_version": ENGINE_SCHEMA,
        "tower": graph.tower,
        "variant": graph.variant,
        "runtime": "tensorrt",
        "source": {file: manifest.files[file].sha256 for file in graph.files},
        "file": f"engines/{name}.plan",
        "bytes": len(plan),
        "sha256": sha256(plan).hexdigest(),
        "machine": vars(MACHINE),
        "options": OPTIONS,
        "profiles": [{"pixels": [1, 65, 65, 3]}],
        "seconds": 1.5,
        "products": {"float32": 9},
        "parity": graph.parity.to_json(),
        "limits": vars(graph.limits),
    }
    folder = bundle / "engines"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.plan").write_bytes(plan)
    (folder / f"{name}.json").write_text(json.dumps(values | changes))
    return folder / f"{name}.json"


@pytest.fixture
def new_bundle(tiny_bundle: Path, tmp_path: Path) -> Iterator[Path]:
    """A bundle as an export has just written it; after the test, nothing but engines was added to it."""
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "new"))
    before = inventory(folder)
    yield folder
    after = inventory(folder)
    assert {name: after.pop(name) for name in before} == before
    assert all(name.startswith("engines/") for name in after)


def kept(old: Path, new: Path) -> list[str]:
    """Names of what moves from the engines of `old` to `new`."""
    keep_engines(old, new, Bundle.open(new).manifest)
    return sorted(path.name for path in (new / "engines").glob("*"))


# Reading


UNREADABLE = {
    "not JSON": b"{",
    "no object": b"[]",
    "not text": b"\xff\xfe",
    "another version": b'{"schema_version": 9}',
    "too large": b" " * (1 << 20) + b"{}",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("kind", [*UNREADABLE, "fifo", "link to nowhere", "folder"])
def test_a_description_that_cannot_be_read_is_skipped_and_reported(
    bundle_copy: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    describe(bundle_copy)
    path = bundle_copy / "engines/bad.json"
    if kind in UNREADABLE:
        path.write_bytes(UNREADABLE[kind])
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    bundle = Bundle.open(bundle_copy)
    found = read_engines(bundle)
    assert [entry.file for entry in found.entries] == [f"engines/{NAME}.plan"]
    assert len(found.skipped) == 1
    assert choose_engine(bundle, bundle.manifest.graphs[0], MACHINE, TENSORRT).file == f"engines/{NAME}.plan"
    assert inspect.main([str(bundle_copy)]) == 0
    printed = capsys.readouterr().out
    assert "engine skipped: " in printed
    assert "bad.json" in printed
    assert inspect.main([str(bundle_copy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["skipped_engines"] == list(found.skipped)


def test_what_was_skipped_is_said_where_no_engine_is_left(bundle_copy: Path) -> None:
    describe(bundle_copy).write_text("{")
    bundle = Bundle.open(bundle_copy)
    with pytest.raises(BackendUnavailableError, match=r"has no TensorRT engine .*1 skipped, first: .*not valid JSON"):
        choose_engine(bundle, bundle.manifest.graphs[0], MACHINE, TENSORRT)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"file": "onnx/vision_model.onnx"}, f"expected engines/{NAME}.plan"),
        ({"file": "engines/../onnx/vision_model.onnx"}, "not a plain path"),
        ({"file": "/etc/passwd"}, "not a plain path"),
        ({"file": "engines/another.plan"}, f"expected engines/{NAME}.plan"),
        ({"bytes": 1 << 60}, "bytes is"),
        ({"profiles": []}, "0 shapes"),
        ({"runtime": "lean"}, "runtime is 'lean'"),
        ({"parity": None}, "parity is None"),
        ({"runtime": "rtx", "machine": {"compute_capabilities": [], "tensorrt": "1.7"}}, "expected some of"),
        ({"runtime": "rtx", "machine": {"compute_capabilities": ["9.0"], "tensorrt": "1.7"}}, "'9.0'"),
        ({"runtime": "rtx", "machine": {"compute_capabilities": [8.9], "tensorrt": "1.7"}}, "8.9"),
        ({"runtime": "rtx", "machine": {"compute_capabilities": ["8.9"], "tensorrt": "x"}}, "'x' is not a version"),
        ({"options": OPTIONS | {"ranges": True}}, "1 shapes; expected 3"),
        ({"profiles": [{"pixels": [1 << 60, 1]}]}, "sizes from 1"),
        ({"profiles": [{"pixels": [1]}]}, "2 to 8 dimensions"),
        ({"profiles": [{"pixels": [1, 65, 65, 3]}] * 5000}, "5000 shapes"),
        ({"seconds": -1}, "seconds is -1.0"),
        ({"products": {"float32": -1}}, "float32 is -1"),
        ({"machine": vars(MACHINE) | {"tensorrt": "newest"}}, "'newest' is not a version"),
        ({"machine": vars(MACHINE) | {"gpu": "g" * 5000}}, "5000 characters"),
        ({"limits": {"max_abs": 1e308, "min_cosine": 1, "min_centred_cosine": 1}}, "max_abs is 1e+308"),
    ],
)
def test_a_description_of_nonsense_is_refused(bundle_copy: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleError) as caught:
        EngineEntry.read(describe(bundle_copy, **changes))
    assert words in str(caught.value)
    assert len(str(caught.value)) <= 500


def test_more_descriptions_than_anyone_has(bundle_copy: Path) -> None:
    (bundle_copy / "engines").mkdir()
    for number in range(MAX_ENGINES + 3):
        (bundle_copy / f"engines/{number}.json").write_text("{}")
    skipped = read_engines(Bundle.open(bundle_copy)).skipped
    assert len(skipped) == MAX_ENGINES + 1
    assert "more than 256" in skipped[-1]


def test_a_plan_is_read_once_and_only_as_described(bundle_copy: Path) -> None:
    entry = EngineEntry.read(describe(bundle_copy))
    bundle, plan = Bundle.open(bundle_copy), bundle_copy / entry.file
    assert read_plan(bundle, entry) == b"a plan"
    for content, words in ((b"b plan", "not the engine that was built"), (b"a planet", "8 bytes; expected at most 6")):
        plan.write_bytes(content)
        with pytest.raises(BundleError, match=words):
            read_plan(bundle, entry)
    plan.unlink()
    os.mkfifo(plan)
    with pytest.raises(BundleError, match="not a regular file"):
        read_plan(bundle, entry)
    plan.unlink()
    (bundle_copy / "aside").write_bytes(b"a plan")
    plan.symlink_to("../aside")
    with pytest.raises(BundleError, match="is a link"):
        read_plan(bundle, entry)


def test_a_folder_that_is_a_link(bundle_copy: Path, tmp_path: Path) -> None:
    describe(bundle_copy)
    (bundle_copy / "engines").rename(tmp_path / "elsewhere")
    (bundle_copy / "engines").symlink_to(tmp_path / "elsewhere")
    assert read_engines(Bundle.open(bundle_copy)).entries == ()


# An old bundle in an export


def test_engines_of_the_same_graphs_are_kept(bundle_copy: Path, new_bundle: Path) -> None:
    describe(bundle_copy)
    (bundle_copy / "engines/gpu.timings").write_bytes(b"timings")
    assert kept(bundle_copy, new_bundle) == ["gpu.timings", f"{NAME}.json", f"{NAME}.plan"]
    entry = EngineEntry.read(new_bundle / f"engines/{NAME}.json")
    assert entry == EngineEntry.read(bundle_copy / f"engines/{NAME}.json")
    assert read_plan(Bundle.open(new_bundle), entry) == b"a plan"
    plan = bundle_copy / f"engines/{NAME}.plan"
    assert plan.stat().st_ino != (new_bundle / f"engines/{NAME}.plan").stat().st_ino  # not one file in two bundles


@pytest.mark.parametrize(
    "changes",
    [
        {"source": {}},
        {"source": {}, "file": "onnx/vision_model.onnx"},
        {"source": {}, "file": "align.json"},
        {"file": "onnx/vision_model.onnx"},
        {"source": {"onnx/vision_model.onnx": "0" * 64}},
        {"sha256": "0" * 64},
        {"bytes": 5},
        {"tower": "text"},
        {"variant": "int8"},
    ],
)
def test_a_poisoned_engine_is_left_behind(bundle_copy: Path, new_bundle: Path, changes: dict[str, Any]) -> None:
    """With an empty source and the path of a graph, an export used to copy the old graph over the new one."""
    describe(bundle_copy, **changes)
    assert kept(bundle_copy, new_bundle) == []


def test_links_do_not_travel(bundle_copy: Path, new_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    describe(bundle_copy, plan=SECRET)
    (bundle_copy / f"engines/{NAME}.plan").unlink()
    (bundle_copy / f"engines/{NAME}.plan").symlink_to(tmp_path / "secret")
    (bundle_copy / "engines/x.timings").symlink_to(tmp_path / "secret")
    os.mkfifo(bundle_copy / "engines/y.timings")
    with (bundle_copy / "engines/z.timings").open("wb") as file:
        file.truncate(MAX_TIMINGS_BYTES + 1)
    assert kept(bundle_copy, new_bundle) == []
    (bundle_copy / "engines").rename(tmp_path / "elsewhere")
    (bundle_copy / "engines").symlink_to(tmp_path / "elsewhere")
    assert kept(bundle_copy, new_bundle) == []


def test_a_build_writes_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    for name in ("a.plan", "a.plan.building"):
        (tmp_path / name).symlink_to(tmp_path / "secret")
    put_file(tmp_path / "a.plan", b"new")
    assert (tmp_path / "secret").read_bytes() == SECRET
    assert (tmp_path / "a.plan").read_bytes() == b"new"
    assert not (tmp_path / "a.plan").is_symlink()
    (tmp_path / "b.timings").symlink_to(tmp_path / "secret")
    assert read_timings(tmp_path / "b.timings") == b""
    os.mkfifo(tmp_path / "c.timings")
    with pytest.raises(BuildError, match="not a regular file"):
        read_timings(tmp_path / "c.timings")


@pytest.mark.slow
def test_a_poisoned_bundle_is_replaced_by_a_clean_one(tiny_checkpoint: Path, bundle_copy: Path) -> None:
    """The whole export over a bundle whose engines lie and whose graph was changed."""
    graph = bundle_copy / "onnx/vision_model.onnx"
    honest = graph.read_bytes()
    describe(bundle_copy, "a", source={}, file="onnx/vision_model.onnx")
    describe(bundle_copy, "b", plan=b"honest")
    (bundle_copy / "engines/x.timings").symlink_to("/etc/hostname")
    graph.write_bytes(honest[:-1] + b"\0")  # another sha256, the same size
    assert export([str(tiny_checkpoint), "-o", str(bundle_copy), "--quiet"]) == 0
    assert Bundle.open(bundle_copy).check_hash("onnx/vision_model.onnx").read_bytes() == honest
    assert sorted(path.name for path in (bundle_copy / "engines").iterdir()) == ["b.json", "b.plan"]
