"""Weights whose keys have a prefix that a wrapper or a training class put in front."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from align_reference.checkpoint import load_model
from align_reference.key_prefixes import without_prefixes
from align_runtime.errors import CheckpointError

KEYS = ("text_model.a.weight", "text_projection.weight", "vision_model.b.0.weight", "temperature")

RENAMED: dict[str, tuple[Callable[[str], str], list[str]]] = {
    "as they are": (lambda key: key, []),
    "data parallel": (lambda key: f"module.{key}", ["removed module. from 4 keys of the weights"]),
    "compiled": (lambda key: f"_orig_mod.{key}", ["removed _orig_mod. from 4 keys of the weights"]),
    "both": (lambda key: f"module._orig_mod.{key}", ["removed module. and _orig_mod. from 4 keys of the weights"]),
    "a tower compiled": (
        lambda key: key.replace("text_model.", "text_model._orig_mod."),
        ["removed _orig_mod. from 1 keys of the weights"],
    ),
    "an attribute": (lambda key: f"model.{key}", ["removed the prefix model. from all 4 keys of the weights"]),
    "attributes": (
        lambda key: f"student.align.{key}",
        ["removed the prefix student.align. from all 4 keys of the weights"],
    ),
    "all of it": (
        lambda key: f"_fsdp_wrapped_module.model._orig_mod.{key}",
        [
            "removed _fsdp_wrapped_module. and _orig_mod. from 4 keys of the weights",
            "removed the prefix model. from all 4 keys of the weights",
        ],
    ),
}


@pytest.mark.parametrize("case", RENAMED)
def test_prefixes_are_removed_and_told(case: str) -> None:
    rename, notes = RENAMED[case]
    found, told = without_prefixes({rename(key): key for key in KEYS}, KEYS, "here")
    assert found == {key: key for key in KEYS}
    assert list(told) == notes


@pytest.mark.parametrize(
    "keys",
    [
        [*(f"model.{key}" for key in KEYS), "loss.weight"],  # not all have it
        [key.partition(".")[2] for key in KEYS],  # nothing in front, something is missing
        [f"text_model.{key}" for key in ("x", "y")],  # a prefix that is part of the names
        [],
    ],
)
def test_everything_else_stays(keys: list[str]) -> None:
    assert without_prefixes(dict.fromkeys(keys), KEYS, "here") == (dict.fromkeys(keys), ())


def test_one_tower_alone_keeps_its_name() -> None:
    only_text = {"model.text_model.a.weight": 0, "model.text_model.c.weight": 1}
    assert list(without_prefixes(only_text, KEYS, "here")[0]) == ["text_model.a.weight", "text_model.c.weight"]


def test_two_keys_do_not_become_one() -> None:
    with pytest.raises(CheckpointError, match=r"here: the key module\.temperature occurs twice, with and without"):
        without_prefixes({"temperature": 0, "module.temperature": 1}, KEYS, "here")


def rewritten(checkpoint: Path, folder: Path, rename: Callable[[str], str], **others: Tensor) -> Path:
    shutil.copytree(checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    save_file({rename(key): tensor.clone() for key, tensor in weights.items()} | others, folder / "model.safetensors")
    return folder


def test_a_wrapped_model_is_loaded_with_a_warning(
    small_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = load_model(small_checkpoint).state_dict()
    wrapped = nn.DataParallel(load_model(small_checkpoint))
    assert all(key.startswith("module.") for key in wrapped.state_dict())
    folder = rewritten(small_checkpoint, tmp_path / "wrapped", lambda key: f"module.{key}")
    with caplog.at_level(logging.WARNING):
        state = load_model(folder).state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in expected.items())
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder}: removed module. from {len(expected)} keys of the weights"
    ]


def test_a_prefix_that_not_all_keys_have_is_one_hint(small_checkpoint: Path, tmp_path: Path) -> None:
    folder = rewritten(small_checkpoint, tmp_path / "mixed", lambda key: f"model.{key}", bias=torch.zeros(1))
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    message = str(caught.value).removeprefix(str(folder))
    count = len(load_file(folder / "model.safetensors")) - 1
    assert f"{count} keys begin with model., which is only removed where all do; 1 do not: bias. Save" in message
    assert len(message) < 250
