"""Which files of a folder are read, and indexes that must not lead to files of other folders."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import pytest

from align_reference.files import WeightFiles, choose_weights, find_weights, fingerprint
from align_runtime.errors import CheckpointError
from support.checkpoints import write_json


@pytest.mark.parametrize(
    ("names", "allow_pickle", "chosen"),
    [
        (["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"], True, "model.safetensors"),
        (["model.safetensors.index.json", "pytorch_model.bin"], True, "model.safetensors.index.json"),
        (["pytorch_model.bin", "pytorch_model.bin.index.json"], True, "pytorch_model.bin"),
        (["pytorch_model.bin.index.json", "config.json"], True, "pytorch_model.bin.index.json"),
        (["model.safetensors", "pytorch_model.bin"], False, "model.safetensors"),
    ],
)
def test_order_of_preference(names: list[str], allow_pickle: bool, chosen: str) -> None:
    assert choose_weights(names, "here", allow_pickle=allow_pickle) == chosen


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_pickle_needs_consent(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"^here holds its weights only as {name}.*--allow-pickle"):
        choose_weights([name, "tf_model.h5"], "here", allow_pickle=False)


def test_no_weights() -> None:
    with pytest.raises(CheckpointError, match=r"^here has no weights; .*model\.safetensors\.index\.json"):
        choose_weights(["flax_model.msgpack", "tf_model.h5", "other.safetensors"], "here", allow_pickle=True)


def index(folder: Path, weight_map: Any) -> Path:
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    return folder


def test_index_is_read(tmp_path: Path) -> None:
    index(tmp_path, {"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"})
    for number in (1, 2, 3):
        (tmp_path / f"model-{number}.safetensors").touch()
    expected = {"model-1.safetensors": frozenset("b"), "model-2.safetensors": frozenset("ac")}
    assert find_weights(tmp_path) == WeightFiles(False, "model.safetensors.index.json", expected)


@pytest.mark.parametrize(
    "name",
    [
        "../other/model.safetensors",
        "/etc/model.safetensors",
        "sub/model.safetensors",
        "..\\model.safetensors",
        "C:model.safetensors",
        "model\n.safetensors",
        "model.bin",
        "..",
        "",
        7,
        None,
    ],
)
def test_index_that_leads_elsewhere(tmp_path: Path, name: Any) -> None:
    with pytest.raises(CheckpointError, match=r"expected the name of a \.safetensors file in the same folder") as e:
        find_weights(index(tmp_path, {"weight": name}))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("weight_map", [None, {}, [], "model.safetensors"])
def test_index_without_a_map(tmp_path: Path, weight_map: Any) -> None:
    with pytest.raises(CheckpointError, match=r"index\.json has no weight_map"):
        find_weights(index(tmp_path, weight_map))


def test_index_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json is not valid JSON"):
        find_weights(tmp_path)


def test_index_that_names_thousands_of_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="1001 files"):
        find_weights(index(tmp_path, {str(number): f"{number}.safetensors" for number in range(1001)}))


def test_shards_that_are_missing(tmp_path: Path) -> None:
    index(tmp_path, {"a": "model-1.safetensors", "b": "model-2.safetensors"})
    (tmp_path / "model-1.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"1 missing files: model-2\.safetensors"):
        find_weights(tmp_path)


def test_folder_that_is_missing_or_a_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        find_weights(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="file is a file"):
        find_weights(tmp_path / "file")


def test_pipes_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")  # reading it would block forever
    with pytest.raises(CheckpointError, match="has no weights"):
        find_weights(tmp_path)


def test_fingerprint_covers_what_is_read(tmp_path: Path) -> None:
    index(tmp_path, {"a": "model-1.safetensors"})
    for name in ("config.json", "model-1.safetensors", "pytorch_model.bin", "vocab.txt", "README.md"):
        (tmp_path / name).write_text(name)
    digests = fingerprint(tmp_path)
    assert list(digests) == ["config.json", "model-1.safetensors", "model.safetensors.index.json", "vocab.txt"]
    assert digests["model-1.safetensors"] == hashlib.sha256(b"model-1.safetensors").hexdigest()
    for name in ("pytorch_model.bin", "README.md"):
        (tmp_path / name).write_text("changed")
    assert fingerprint(tmp_path) == digests
    for name in ("vocab.txt", "model-1.safetensors"):
        before = fingerprint(tmp_path)
        (tmp_path / name).write_text("changed")
        changed = fingerprint(tmp_path)
        assert {name for name in digests if changed[name] != before[name]} == {name}


def test_fingerprint_without_a_file(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"config\.json does not exist"):
        fingerprint(tmp_path)


def test_fingerprint_without_weights(tmp_path: Path) -> None:
    for name in ("config.json", "vocab.txt"):
        (tmp_path / name).write_text(name)
    assert list(fingerprint(tmp_path, weights=False)) == ["config.json", "vocab.txt"]


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 690000000\n"
READ = ("config.json", "model.safetensors.index.json", "model-1.safetensors", "tokenizer.json", "vocab.txt")


@pytest.mark.parametrize("name", READ)
def test_a_pointer_of_git_lfs_is_called_one(name: str, tmp_path: Path) -> None:
    index(tmp_path, {"a": "model-1.safetensors"})
    for file in READ:
        if file != "model.safetensors.index.json":
            (tmp_path / file).write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(LFS)  # is not read, so it may stay one
    fingerprint(tmp_path)
    (tmp_path / name).write_bytes(LFS)
    message = rf"{re.escape(name)} is a pointer of git-lfs instead of the content; fetch it with `git lfs pull`"
    with pytest.raises(CheckpointError, match=message):
        fingerprint(tmp_path)


def test_all_pointers_are_named_at_once(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes(LFS)
    with pytest.raises(CheckpointError, match=r"config\.json, tokenizer\.json are pointers of git-lfs"):
        fingerprint(tmp_path, weights=False)


def test_a_pointer_of_git_annex(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"/annex/objects/SHA256E-s690000000--0.safetensors\n")
    with pytest.raises(CheckpointError, match="is a pointer of git-annex .* `git annex get`"):
        find_weights(tmp_path)
