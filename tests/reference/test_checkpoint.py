"""From a folder to a model: what is loaded, and one error for everything that does not fit."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import align_reference
from align_reference.checkpoint import load_model
from align_reference.files import fingerprint
from align_reference.source import resolve
from align_runtime.errors import CheckpointError, ConfigurationError
from support.checkpoints import build_model, crops, pixel_values, small_config, token_batch
from support.tokenizers import tokenizer

POOLER = ["text_model.pooler.dense.bias", "text_model.pooler.dense.weight"]


@pytest.fixture
def folder(small_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(small_checkpoint, tmp_path / "align-small"))


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
    """Saves the weights of `folder` again after `change`."""
    path = folder / "model.safetensors"
    weights = {key: tensor.clone() for key, tensor in load_file(path).items()}
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})
    return folder


def as_pickle(folder: Path) -> Path:
    weights = load_file(folder / "model.safetensors")
    torch.save({key: tensor.clone() for key, tensor in weights.items()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def assert_same(model: nn.Module, expected: dict[str, Tensor]) -> None:
    state = model.state_dict()
    assert state.keys() == expected.keys()
    assert [key for key in expected if not torch.equal(state[key], expected[key])] == []


# --- what is loaded --------------------------------------------------------------------------------------------------


def test_weights_are_loaded_exactly(small_checkpoint: Path) -> None:
    model = load_model(resolve(str(small_checkpoint)))
    assert_same(model, build_model(small_config()).state_dict())
    assert not any(module.training for module in model.modules())
    for tensor in (*model.parameters(), *model.buffers()):
        assert tensor.device.type == "cpu"
        assert tensor.is_contiguous()
        assert not tensor.requires_grad
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_weights_stay_in_the_file(small_checkpoint: Path) -> None:
    model = load_model(small_checkpoint)
    path = str(small_checkpoint / "model.safetensors")
    areas = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(path)]
    bounds = [tuple(int(end, 16) for end in area.split("-")) for area in areas]
    for key, tensor in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert any(start <= tensor.data_ptr() < stop for start, stop in bounds), key


def test_transformers_reads_the_same_folder(small_checkpoint: Path) -> None:
    oracle, report = transformers.AlignModel.from_pretrained(small_checkpoint, output_loading_info=True)
    assert not any(report.values()), report
    assert_same(oracle, load_model(small_checkpoint).state_dict())
    processor = transformers.AutoProcessor.from_pretrained(small_checkpoint)
    batch = processor(text=["a cat", "two dogs"], images=crops(2, 80), return_tensors="pt")
    assert batch["pixel_values"].shape == (2, 3, 65, 65)
    ids = [tokenizer().encode(text).ids for text in ("a cat", "two dogs")]
    assert [row[: len(own)] for row, own in zip(batch["input_ids"].tolist(), ids, strict=True)] == ids


@pytest.mark.parametrize("limit", ["10GB", "50KB"])
def test_folder_saved_by_transformers(small_checkpoint: Path, tmp_path: Path, limit: str) -> None:
    transformers.AlignModel.from_pretrained(small_checkpoint).save_pretrained(tmp_path, max_shard_size=limit)
    assert (tmp_path / "model.safetensors.index.json").exists() == (limit == "50KB")
    model = load_model(tmp_path)
    assert_same(model, load_model(small_checkpoint).state_dict())
    read = {path.name for path in tmp_path.iterdir()} - {"generation_config.json"}
    assert fingerprint(tmp_path).keys() == read
    assert "config.json" in read


def test_pickle(folder: Path, small_checkpoint: Path) -> None:
    as_pickle(folder)
    assert_same(load_model(folder, allow_pickle=True), load_model(small_checkpoint).state_dict())
    assert "pytorch_model.bin" in fingerprint(folder, allow_pickle=True)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin.*--allow-pickle"):
        load_model(folder)


def test_sharded_pickle(folder: Path, small_checkpoint: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    names = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    parts = [{key: weights[key].clone() for key in sorted(weights)[half::2]} for half in (0, 1)]
    for name, part in zip(names, parts, strict=True):
        torch.save(part, folder / name)
    weight_map = {key: name for name, part in zip(names, parts, strict=True) for key in part}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "model.safetensors").unlink()
    assert_same(load_model(folder, allow_pickle=True), load_model(small_checkpoint).state_dict())


def test_pickled_weights_become_contiguous(folder: Path, small_checkpoint: Path) -> None:
    weights = dict(load_file(folder / "model.safetensors"))
    key = "text_projection.weight"
    weights[key] = weights[key].T.contiguous().T
    assert not weights[key].is_contiguous()
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    model = load_model(folder, allow_pickle=True)
    assert model.text_projection.weight.is_contiguous()
    assert_same(model, load_model(small_checkpoint).state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_floats_are_widened_exactly(folder: Path, dtype: torch.dtype) -> None:
    def narrow(weights: dict[str, Tensor]) -> None:
        weights.update({key: tensor.to(dtype) for key, tensor in weights.items() if tensor.is_floating_point()})

    stored = load_file(rewrite(folder, narrow) / "model.safetensors")
    model = load_model(folder)
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor.to(stored[key].dtype), stored[key])
        assert tensor.dtype in (torch.float32, torch.int64)


def test_legacy_buffers_are_ignored_by_name(folder: Path, small_checkpoint: Path) -> None:
    def add(weights: dict[str, Tensor]) -> None:
        weights["text_model.embeddings.position_ids"] = torch.arange(64)[None]
        weights["text_model.embeddings.token_type_ids"] = torch.zeros(1, 64, dtype=torch.int64)
        weights["vision_model.embeddings.batchnorm.num_batches_tracked"] = torch.tensor(123)

    assert_same(load_model(rewrite(folder, add)), load_model(small_checkpoint).state_dict())


def test_batch_counters_may_be_missing(folder: Path, small_checkpoint: Path) -> None:
    def drop(weights: dict[str, Tensor]) -> None:
        for key in [key for key in weights if key.endswith("num_batches_tracked")]:
            del weights[key]

    assert_same(load_model(rewrite(folder, drop)), load_model(small_checkpoint).state_dict())


@torch.inference_mode()
def test_pooler_may_be_missing(folder: Path, small_checkpoint: Path) -> None:
    def drop(weights: dict[str, Tensor]) -> None:
        for key in POOLER:
            del weights[key]

    model, whole = load_model(rewrite(folder, drop)), load_model(small_checkpoint)
    assert model.text_model.pooler is None
    assert model.state_dict().keys() == whole.state_dict().keys() - set(POOLER)
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    ids, mask = token_batch(model.config, 2, 9)
    assert torch.equal(model.get_text_features(ids, mask), whole.get_text_features(ids, mask))
    output = model(ids, pixel_values(2, 65), mask)
    assert output.text_model_output.pooler_output is None
    assert whole.text_model(ids, mask).pooler_output.shape == (2, 32)


def test_front_door() -> None:
    assert sorted(align_reference.__all__) == dir(align_reference)
    for name in align_reference.__all__:
        assert getattr(align_reference, name).__module__.startswith("align_reference.")
    assert align_reference.load_model is load_model
    with pytest.raises(AttributeError, match="nothing"):
        align_reference.nothing  # noqa: B018


@torch.inference_mode()
def test_example_of_the_package(small_checkpoint: Path) -> None:
    from align_reference import AlignConfig, AlignModel, AlignOutput, load_model

    model = load_model(str(small_checkpoint))
    assert isinstance(model, AlignModel)
    assert model.config == AlignConfig.from_file(small_checkpoint / "config.json")
    input_ids, attention_mask = token_batch(model.config, 2, 9)
    output = model(input_ids, pixel_values(3, 65), attention_mask)
    assert isinstance(output, AlignOutput)
    torch.testing.assert_close(output.logits_per_image.softmax(dim=1).sum(dim=1), torch.ones(3))
    attentions = model.text_model(input_ids, output_attentions=True).attentions
    assert [weights.shape for weights in attentions] == [(2, 4, 9, 9)] * 2


def test_checkpoint_by_name(small_checkpoint: Path) -> None:
    assert_same(load_model(str(small_checkpoint)), load_model(resolve(str(small_checkpoint))).state_dict())
    with pytest.raises(CheckpointError, match="neither an existing folder nor a hub id"):
        load_model("nowhere")


# --- what does not fit -----------------------------------------------------------------------------------------------


def test_everything_that_does_not_fit_is_in_one_error(folder: Path) -> None:
    def spoil(weights: dict[str, Tensor]) -> None:
        del weights["temperature"], weights[POOLER[0]]
        weights["classifier.weight"] = torch.ones(2)
        weights["position_ids"] = torch.ones(2)  # harmless only in its own place
        weights["text_projection.bias"] = torch.ones(5)
        weights["text_projection.weight"] = weights["text_projection.weight"].T.contiguous()
        weights["text_model.embeddings.LayerNorm.bias"] = torch.ones(32, dtype=torch.float64)

    with pytest.raises(CheckpointError) as caught:
        load_model(rewrite(folder, spoil))
    message = str(caught.value)
    assert message.startswith(str(folder))
    for part in (
        "2 missing: temperature, text_model.pooler.dense.bias",
        "2 unexpected: classifier.weight, position_ids",
        "2 of the wrong shape: text_projection.bias (expected (24,), got (5,))",
        "1 neither float32, float16 nor bfloat16: text_model.embeddings.LayerNorm.bias (torch.float64)",
    ):
        assert part in message


def test_error_of_another_model_is_bounded(folder: Path) -> None:
    def replace(weights: dict[str, Tensor]) -> None:
        weights.clear()
        weights.update({f"x{number:04d}" + "y" * 200: torch.ones(1) for number in range(3000)})

    with pytest.raises(CheckpointError, match=r"\d+ missing: .* and \d+ more; 3000 unexpected: x0000.* more") as e:
        load_model(rewrite(folder, replace))
    assert len(str(e.value).removeprefix(str(folder))) < 450


def test_configuration_of_another_size(folder: Path) -> None:
    values = small_config(text_config={"num_hidden_layers": 1, "intermediate_size": 96})
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"16 unexpected: text_model\.encoder\.layer\.1\..*3 of the wrong"):
        load_model(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_that_are_not_finite(folder: Path, value: float, dtype: torch.dtype) -> None:
    def spoil(weights: dict[str, Tensor]) -> None:
        for key in ("temperature", "vision_model.embeddings.batchnorm.running_var", "text_projection.weight"):
            weights[key] = weights[key].to(dtype)
            weights[key].view(-1)[-1] = value

    with pytest.raises(CheckpointError) as caught:
        load_model(rewrite(folder, spoil))
    for part in ("3 weights", "temperature, text_projection.weight, vision_model.embeddings.batchnorm.running_var"):
        assert part in str(caught.value)


@pytest.mark.parametrize("value", [0.0, -0.07, 9e-7, 2e6])
def test_temperature_that_logits_cannot_be_divided_by(folder: Path, value: float) -> None:
    with pytest.raises(CheckpointError, match=re.escape(f"temperature is {value:g}, which")):
        load_model(rewrite(folder, lambda weights: weights.update(temperature=torch.tensor(value))))


def test_folder_without_its_files(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        load_model(folder / "nowhere")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="align-small has no weights"):
        load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"align-small has no config\.json"):
        load_model(folder)


def test_truncated_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated"):
        load_model(folder)


def test_configuration_that_is_not_understood(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ConfigurationError, match="model_type is 'clip'"):
        load_model(folder)


def test_forged_sizes_take_no_memory(folder: Path) -> None:
    values = small_config(text_config={"vocab_size": 1 << 24, "hidden_size": 1 << 16, "intermediate_size": 1 << 16})
    (folder / "config.json").write_text(json.dumps(values))  # 4 TiB of word embeddings
    with pytest.raises(ConfigurationError, match=r"a model of 1,155,353,637,183 parameters; at most 2,147,483,648"):
        load_model(folder)
