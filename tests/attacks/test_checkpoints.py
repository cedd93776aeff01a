"""Checkpoints from a stranger: files that are no files, absurd numbers, forged headers. Each is one error, at once."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align_exporter.checkpoint.read_checkpoint import read_checkpoint
from align_exporter.export_options import ExportOptions
from align_exporter.freshness import provenance
from align_reference.source import CheckpointSource
from align_runtime.errors import MAX_MESSAGE, CheckpointError, ConfigurationError

FILES = (
    *("config.json", "model.safetensors", "preprocessor_config.json", "processor_config.json", "tokenizer.json"),
    *("tokenizer_config.json", "vocab.txt", "special_tokens_map.json", "added_tokens.json"),
)
DEEP = 100_000


def edited(name: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        change(content)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")

    return edit


def written(name: str, content: str | bytes) -> Callable[[Path], None]:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data) and None


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> Callable[[Path], None]:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return written("model.safetensors", (len(text) if length is None else length).to_bytes(8, "little") + text + data)


def sharded(weight_map: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return write


def entry(shape: list[int], start: int, stop: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def text(key: str, value: Any) -> Callable[[Path], None]:
    return edited("config.json", lambda content: content["text_config"].update({key: value}))


def vision(key: str, value: Any) -> Callable[[Path], None]:
    return edited("config.json", lambda content: content["vision_config"].update({key: value}))


def images(key: str, value: Any) -> Callable[[Path], None]:
    return edited("preprocessor_config.json", lambda content: content.update({key: value}))


def words(key: str, value: Any) -> Callable[[Path], None]:
    return edited("tokenizer_config.json", lambda content: content.update({key: value}))


ATTACKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "deep config.json": (written("config.json", '{"a":' * DEEP + "1" + "}" * DEEP), r"config\.json is not valid JSON"),
    "rather deep config.json": (
        written("config.json", '{"a":' * 300 + "1" + "}" * 300),
        r"config\.json nests objects and arrays more than 64 deep",
    ),
    "deep tokenizer.json": (
        edited("tokenizer.json", lambda content: content.update(decoder=json.loads("[" * 200 + "]" * 200))),
        r"tokenizer\.json nests",
    ),
    "a number of 100,000 digits": (written("config.json", '{"a": 1' + "0" * 100_000 + "}"), "is not valid JSON"),
    "billions of layers": (text("num_hidden_layers", 10**9), "num_hidden_layers is 1000000000; 1 to 1024"),
    "terabytes of words": (
        edited("config.json", lambda content: content["text_config"].update(vocab_size=1 << 24, hidden_size=1 << 16)),
        "parameters; at most 2,147,483,648",
    ),
    "an activation of 5 MB": (text("hidden_act", "x" * 5_000_000), "hidden_act is 'xxx"),
    "an activation with control characters": (text("hidden_act", "\x1b[2J\u202egelu"), "hidden_act is "),
    "half of a surrogate pair in config.json": (text("hidden_act", "\ud800"), r"'\\ud800', half of a surrogate pair"),
    "a model type that is a list": (
        edited("config.json", lambda content: content.update(model_type=["align"] * 10**6)),
        r"model_type is \['align', 'align'",
    ),
    "a width that rounds to nothing": (vision("width_coefficient", 1e-310), "width_coefficient is 1e-310"),
    "a million stages": (vision("kernel_sizes", [3] * 10**6), "kernel_sizes has 1000000 entries"),
    "images of gigapixels": (vision("image_size", 10**9), "image_size is 1000000000"),
    "crops of gigapixels": (images("crop_size", {"height": 10**9, "width": 10**9}), "1 to 8192"),
    "crops that take gigabytes in the tower": (
        images("crop_size", {"height": 8192, "width": 8192}),
        "images of 8192×8192 pixels; at most 2048",
    ),
    "a scale that is no number": (written("preprocessor_config.json", '{"rescale_factor": NaN}'), "NaN is not a JSON"),
    "a scale beyond floats": (images("rescale_factor", 1e300), "not finite in float32"),
    "texts of one token": (words("model_max_length", 1), "model_max_length is 1; expected an integer of 2"),
    "texts of less than nothing": (words("model_max_length", -(10**30)), "model_max_length is -1000"),
    "a token of half a surrogate pair": (words("mask_token", "\udfff"), "half of a surrogate pair"),
    "a vocabulary with half a surrogate pair": (
        edited("tokenizer.json", lambda content: content["model"]["vocab"].update({"\ud83d": 7})),
        "half of a surrogate pair",
    ),
    "an id of 5,000 digits": (
        words("added_tokens_decoder", {"9" * 5000: {"content": "x"}}),
        "added_tokens_decoder: the key '999",
    ),
    "an id beyond 32 bits": (
        edited("tokenizer.json", lambda content: content["model"]["vocab"].update(x=2**32)),
        r"the id of 'x' is 4294967296; expected 0 to 4294967295",
    ),
    "an id below 0": (
        edited("tokenizer.json", lambda content: content["model"]["vocab"].update(x=-1)),
        "the id of 'x'",
    ),
    "a vocabulary larger than the embedding": (
        edited("tokenizer.json", lambda content: content["model"]["vocab"].update(x=2**32 - 1)),
        r"vocab\.txt and tokenizer\.json contradict each other, first at 'x'",
    ),
    "a vocabulary that is no text": (written("vocab.txt", b"\xff\xfe\x00\xd8"), r"vocab\.txt is not a vocabulary"),
    "a header of exabytes": (safetensors({}, length=1 << 62), "its header would have 4611686018427387904 bytes"),
    "a header beyond the file": (safetensors({}, length=1 << 20), "truncated, damaged or not a safetensors file"),
    "a header of nested arrays": (safetensors(b"[" * 100_000), "truncated, damaged or not a safetensors file"),
    "tensors that overlap": (
        safetensors({"a": entry([2], 0, 8), "temperature": entry([2], 4, 12)}, bytes(12)),
        "truncated, damaged or not a safetensors file",
    ),
    "a tensor beyond the file": (safetensors({"a": entry([1 << 40], 0, 1 << 42)}), "truncated, damaged"),
    "a shape that overflows": (
        safetensors({"a": entry([1 << 62, 1 << 62], 0, 4)}, bytes(4)),
        "truncated, damaged or not a safetensors file",
    ),
    "a tensor of a negative size": (safetensors({"a": entry([-1], 0, 4)}, bytes(4)), "truncated, damaged"),
    "a type that nobody has": (safetensors({"a": entry([1], 0, 4, "F33")}, bytes(4)), "truncated, damaged"),
    "an index that leads out of the folder": (sharded({"a": "../model.safetensors"}), "in the same folder"),
    "an index of thousands of files": (
        sharded({f"key_{number}": f"{number}.safetensors" for number in range(10**5)}),
        "names 100000 files; at most 1000",
    ),
    "an index without an end": (sharded({"a": "x" * 10**6 + ".safetensors"}), "names 1 missing files"),
}


@pytest.fixture
def folder(small_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_checkpoint, tmp_path / "stranger"))


def refused(folder: Path, message: str) -> None:
    """Whatever reads the checkpoint first: the hashes of its files, or their content."""
    source = CheckpointSource(folder, folder.name, None)
    with pytest.raises((CheckpointError, ConfigurationError), match=message) as caught:
        [step(source, ExportOptions()) for step in (provenance, read_checkpoint)]
    assert len(str(caught.value)) <= MAX_MESSAGE
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("attack", ATTACKS)
def test_one_error_at_once(attack: str, folder: Path) -> None:
    write, message = ATTACKS[attack]
    write(folder)
    refused(folder, message)


@pytest.mark.parametrize("name", FILES)
def test_a_fifo_never_blocks(name: str, folder: Path) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    refused(folder, "is not a regular file|has no weights")


@pytest.mark.parametrize("name", FILES)
def test_a_device_has_no_end(name: str, folder: Path) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("/dev/zero")
    refused(folder, "is not a regular file|has no weights")


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_a_terabyte_is_neither_hashed_nor_read(name: str, folder: Path) -> None:
    with (folder / name).open("wb") as file:
        file.truncate(1 << 40)  # sparse
    refused(folder, "has 1099511627776 bytes; expected at most")
    if name != "model.safetensors":
        with pytest.raises(CheckpointError, match="has 1099511627776 bytes; expected at most"):
            read_checkpoint(CheckpointSource(folder, folder.name, None), ExportOptions())


def test_random_weights_take_no_terabytes(folder: Path) -> None:
    edited("config.json", lambda content: content["text_config"].update(vocab_size=1 << 24, hidden_size=1 << 12))(
        folder
    )
    for file in FILES:
        if file != "config.json":
            (folder / file).unlink(missing_ok=True)
    source = CheckpointSource(folder, folder.name, None)
    with pytest.raises(ConfigurationError, match="parameters; at most 2,147,483,648"):
        read_checkpoint(source, ExportOptions(random_weights=0))


@pytest.mark.parametrize("name", FILES)
def test_a_link_that_leads_nowhere_is_no_missing_file(folder: Path, name: str) -> None:
    """As in a cache of the hub whose blobs were removed: no default stands in for the file."""
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("../../blobs/gone")
    source = CheckpointSource(folder, folder.name, None)
    for read in (read_checkpoint, provenance):
        with pytest.raises(CheckpointError, match=f"{name} is a link to a file that does not exist"):
            read(source, ExportOptions())
