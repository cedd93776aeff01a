"""Weight files are read as stored and memory-mapped; damaged ones are refused with a message."""

from __future__ import annotations

import json
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from align_reference.files import find_weights
from align_reference.weights import MAX_HEADER_BYTES, read_pickle, read_safetensors, read_weights
from align_runtime.errors import CheckpointError
from support.checkpoints import write_json

TENSORS = {
    "matrix": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "half": torch.tensor([1.5, -2.0], dtype=torch.float16),
    "scalar": torch.tensor(0.07),
}


def same(read: dict[str, Tensor]) -> bool:
    return read.keys() == TENSORS.keys() and all(
        torch.equal(read[key], tensor) and read[key].dtype == tensor.dtype for key, tensor in TENSORS.items()
    )


def is_mapped(path: Path) -> bool:
    return any(line.rstrip().endswith(str(path)) for line in Path("/proc/self/maps").read_text().splitlines())


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    read = read_safetensors(path)
    assert same(read)
    assert is_mapped(path)


def test_pickle(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save(OrderedDict(TENSORS), path)
    read = read_pickle(path)
    assert same(read)
    assert is_mapped(path)


def header(values: Any) -> bytes:
    text = values if isinstance(values, bytes) else json.dumps(values).encode()
    return struct.pack("<Q", len(text)) + text


def entry(dtype: str, shape: list[int], start: int, stop: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


DAMAGED: dict[str, bytes] = {
    "empty": b"",
    "text": b"version https://git-lfs.github.com/spec/v1\n",
    "header no JSON": header(b"{{{{"),
    "header cut": header({"a": entry("F32", [1], 0, 4)})[:20],
    "data cut": header({"a": entry("F32", [2], 0, 8)}) + b"1234",
    "data too long": header({"a": entry("F32", [1], 0, 4)}) + b"12345678",
    "overlap": header({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 0, 8)}) + bytes(8),
    "gap": header({"a": entry("F32", [1], 4, 8)}) + bytes(8),
    "shape overflows": header({"a": entry("F32", [2**40, 2**40], 0, 8)}) + bytes(8),
    "shape and size disagree": header({"a": entry("F32", [3], 0, 8)}) + bytes(8),
    "negative shape": header({"a": entry("F32", [-2], 0, 8)}) + bytes(8),
    "unknown type": header({"a": entry("F31", [1], 0, 4)}) + bytes(4),
    "type unknown to torch": header({"a": entry("F6_E2M3", [4], 0, 3)}) + bytes(3),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_safetensors(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(DAMAGED[name])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is (truncated, )?damaged") as e:
        read_safetensors(path)
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 400


def test_truncated_at_any_place(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            read_safetensors(path)


def test_huge_header_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", MAX_HEADER_BYTES + 1))
        file.truncate(MAX_HEADER_BYTES + 100)
    with pytest.raises(CheckpointError, match="16777217 bytes"):
        read_safetensors(path)


class Opaque:
    """Something that is not a tensor, and that the restricted unpickler does not know."""


def test_pickle_with_a_class_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": Opaque()}, path)
    with pytest.raises(CheckpointError, match=r"it contains [\w.]*test_weights\.Opaque") as caught:
        read_pickle(path)
    assert "\n" not in str(caught.value)


class Touch:
    """Unpickled without restriction, this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickle_runs_no_code(tmp_path: Path) -> None:
    path, witness = tmp_path / "pytorch_model.bin", tmp_path / "witness"
    torch.save({"a": Touch(witness)}, path)
    with pytest.raises(CheckpointError, match="cannot be read as a state dict"):
        read_pickle(path)
    assert not witness.exists()
    torch.load(path, weights_only=False)  # proves that the file is an attack
    assert witness.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "holds a list"),
        ({"model": {"a": torch.ones(1)}, "epoch": 3}, r"'model' \(dict\), 'epoch' \(int\)"),
        ({3: torch.ones(1)}, r"3 \(Tensor\)"),
        ({"a": torch.eye(3).to_sparse()}, r"'a' \(Tensor\)"),
        ({"a": torch.ones(1, device="meta")}, r"'a' \(Tensor\)"),
        ({"a": torch.ones(1).expand(1 << 40)}, r"'a' \(Tensor\)"),  # 4 TiB from 4 bytes
    ],
)
def test_pickle_of_something_else(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=message):
        read_pickle(path)


def test_damaged_pickle(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save(TENSORS, path)
    whole = path.read_bytes()
    for content in (b"", b"PK", whole[: len(whole) // 2], whole[:-1], b"version https://git-lfs"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"pytorch_model\.bin cannot be read as a state dict") as e:
            read_pickle(path)
        assert "\n" not in str(e.value)


def test_pickle_of_the_old_format(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"older than PyTorch 1\.6"):
        read_pickle(path)


def shards(folder: Path, weight_map: dict[str, str], *files: dict[str, Tensor]) -> Path:
    write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})
    for number, tensors in enumerate(files):
        save_file(tensors, folder / f"{number}.safetensors")
    return folder


ONE = torch.ones(1)


def test_shards_are_joined(tmp_path: Path) -> None:
    folder = shards(tmp_path, {"a": "0.safetensors", "b": "1.safetensors"}, {"a": ONE}, {"b": 2 * ONE})
    read = read_weights(folder, find_weights(folder))
    assert {key: float(tensor) for key, tensor in read.items()} == {"a": 1.0, "b": 2.0}


def test_index_and_shards_that_disagree(tmp_path: Path) -> None:
    weight_map = {"a": "0.safetensors", "b": "0.safetensors", "c": "1.safetensors"}
    folder = shards(tmp_path, weight_map, {"a": ONE, "c": 2 * ONE}, {"c": 3 * ONE})
    with pytest.raises(CheckpointError) as caught:
        read_weights(folder, find_weights(folder))
    assert "b is not in 0.safetensors, c in 0.safetensors is not in the index" in str(caught.value)
