"""From a name to a model: what is found, what is loaded, and one error for all that does not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from align_reference.checkpoint import load_model
from align_reference.files import fingerprint
from align_reference.source import CheckpointSource, resolve
from align_runtime.errors import CheckpointError, ConfigurationError
from support.checkpoints import build_model, crops, small_config, token_batch, write_checkpoint
from support.tokenizers import tokenizer

POOLER = ["text_model.pooler.dense.bias", "text_model.pooler.dense.weight"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("original") / "align-small", small_config())


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "align-small"))


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


# --- resolve ---------------------------------------------------------------------------------------------------------


def test_local_folder(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(str(original)) == CheckpointSource(original, "align-small", None)
    monkeypatch.chdir(original)
    assert resolve(".") == CheckpointSource(Path(), "align-small", None)
    monkeypatch.chdir(original.parent.parent)
    relative = f"{original.parent.name}/align-small"  # looks like a hub id, but the folder goes first
    assert resolve(relative) == CheckpointSource(Path(relative), "align-small", None)


def test_home_folder(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(original.parent))
    assert resolve("~/align-small").folder == original


def test_revision_of_a_local_folder(original: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"revision 'main' was given with the local folder .*; only a hub id"):
        resolve(str(original), "main")


@pytest.mark.parametrize(
    "name", ["./nowhere", "../a/b", "/a/b", "~/nowhere", "a/b/c", "nowhere", "a\\b", "", "a /b", "-a/b", "a/", "x\0/y"]
)
def test_neither_folder_nor_hub_id(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"is neither an existing folder nor a hub id \(owner/name\)$") as caught:
        resolve(name)
    assert str(caught.value).startswith(repr(name))


def test_name_too_long() -> None:
    with pytest.raises(CheckpointError, match="cannot be read: File name too long"):
        resolve("x" * 5000)


def test_file_instead_of_a_folder(original: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json is a file; give the folder that holds config\.json"):
        resolve(str(original / "config.json"))


# --- what is loaded --------------------------------------------------------------------------------------------------


def test_weights_are_loaded_exactly(original: Path) -> None:
    model = load_model(resolve(str(original)))
    assert_same(model, build_model(small_config()).state_dict())
    assert not any(module.training for module in model.modules())
    for tensor in (*model.parameters(), *model.buffers()):
        assert tensor.device.type == "cpu"
        assert tensor.is_contiguous()
        assert not tensor.requires_grad
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_weights_stay_in_the_file(original: Path) -> None:
    model = load_model(original)
    path = str(original / "model.safetensors")
    areas = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(path)]
    bounds = [tuple(int(end, 16) for end in area.split("-")) for area in areas]
    for key, tensor in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert any(start <= tensor.data_ptr() < stop for start, stop in bounds), key


def test_transformers_reads_the_same_folder(original: Path) -> None:
    oracle, report = transformers.AlignModel.from_pretrained(original, output_loading_info=True)
    assert not any(report.values()), report
    assert_same(oracle, load_model(original).state_dict())
    processor = transformers.AutoProcessor.from_pretrained(original)
    batch = processor(text=["a cat", "two dogs"], images=crops(2, 80), return_tensors="pt")
    assert batch["pixel_values"].shape == (2, 3, 65, 65)
    ids = [tokenizer().encode(text).ids for text in ("a cat", "two dogs")]
    assert [row[: len(own)] for row, own in zip(batch["input_ids"].tolist(), ids, strict=True)] == ids


@pytest.mark.parametrize("limit", ["10GB", "50KB"])
def test_folder_saved_by_transformers(original: Path, tmp_path: Path, limit: str) -> None:
    transformers.AlignModel.from_pretrained(original).save_pretrained(tmp_path, max_shard_size=limit)
    assert (tmp_path / "model.safetensors.index.json").exists() == (limit == "50KB")
    model = load_model(tmp_path)
    assert_same(model, load_model(original).state_dict())
    read = {path.name for path in tmp_path.iterdir()} - {"generation_config.json"}
    assert fingerprint(tmp_path).keys() == read
    assert "config.json" in read


def test_pickle(folder: Path, original: Path) -> None:
    as_pickle(folder)
    assert_same(load_model(folder, allow_pickle=True), load_model(original).state_dict())
    assert "pytorch_model.bin" in fingerprint(folder, allow_pickle=True)
    with pytest.raises(CheckpointError, match=r"holds its weights only as pytorch_model\.bin, .* give --allow-pickle"):
        load_model(folder)


def test_sharded_pickle(folder: Path, original: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    names = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    parts = [{key: weights[key].clone() for key in sorted(weights)[half::2]} for half in (0, 1)]
    for name, part in zip(names, parts, strict=True):
        torch.save(part, folder / name)
    weight_map = {key: name for name, part in zip(names, parts, strict=True) for key in part}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "model.safetensors").unlink()
    assert_same(load_model(folder, allow_pickle=True), load_model(original).state_dict())


def test_pickled_weights_become_contiguous(folder: Path, original: Path) -> None:
    weights = dict(load_file(folder / "model.safetensors"))
    key = "text_projection.weight"
    weights[key] = weights[key].T.contiguous().T
    assert not weights[key].is_contiguous()
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    model = load_model(folder, allow_pickle=True)
    assert model.text_projection.weight.is_contiguous()
    assert_same(model, load_model(original).state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_floats_are_widened_exactly(folder: Path, dtype: torch.dtype) -> None:
    def narrow(weights: dict[str, Tensor]) -> None:
        weights.update({key: tensor.to(dtype) for key, tensor in weights.items() if tensor.is_floating_point()})

    stored = load_file(rewrite(folder, narrow) / "model.safetensors")
    model = load_model(folder)
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor.to(stored[key].dtype), stored[key])
        assert tensor.dtype in (torch.float32, torch.int64)


def test_legacy_buffers_are_ignored_by_name(folder: Path, original: Path) -> None:
    def add(weights: dict[str, Tensor]) -> None:
        weights["text_model.embeddings.position_ids"] = torch.arange(64)[None]
        weights["text_model.embeddings.token_type_ids"] = torch.zeros(1, 64, dtype=torch.int64)
        weights["vision_model.embeddings.batchnorm.num_batches_tracked"] = torch.tensor(123)

    assert_same(load_model(rewrite(folder, add)), load_model(original).state_dict())


def test_batch_counters_may_be_missing(folder: Path, original: Path) -> None:
    def drop(weights: dict[str, Tensor]) -> None:
        for key in [key for key in weights if key.endswith("num_batches_tracked")]:
            del weights[key]

    assert_same(load_model(rewrite(folder, drop)), load_model(original).state_dict())


@torch.inference_mode()
def test_pooler_may_be_missing(folder: Path, original: Path) -> None:
    def drop(weights: dict[str, Tensor]) -> None:
        for key in POOLER:
            del weights[key]

    model, whole = load_model(rewrite(folder, drop)), load_model(original)
    ids, mask = token_batch(model.config, 2, 9)
    assert torch.equal(model.get_text_features(ids, mask), whole.get_text_features(ids, mask))
    assert not any(tensor.is_meta for tensor in model.state_dict().values())


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
    assert str(caught.value) == (
        f"{folder}: the weights do not fit config.json; 2 missing: temperature, text_model.pooler.dense.bias; "
        "2 unexpected: classifier.weight, position_ids; 2 of the wrong shape: text_projection.bias (in the file (5,), "
        "by config.json (24,)), text_projection.weight (in the file (32, 24), by config.json (24, 32)); 1 neither "
        "float32, float16 nor bfloat16: text_model.embeddings.LayerNorm.bias (torch.float64)"
    )


def test_error_of_another_model_is_bounded(folder: Path) -> None:
    def replace(weights: dict[str, Tensor]) -> None:
        weights.clear()
        weights.update({f"x{number:04d}" + "y" * 200: torch.ones(1) for number in range(3000)})

    with pytest.raises(
        CheckpointError, match=r"\d+ missing: .* and \d+ more; 3000 unexpected: x0000.* and 2980 more"
    ) as e:
        load_model(rewrite(folder, replace))
    assert len(str(e.value)) < 5000


def test_configuration_of_another_size(folder: Path) -> None:
    values = small_config(text_config={"num_hidden_layers": 1, "intermediate_size": 96})
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"16 unexpected: text_model\.encoder\.layer\.1\..*3 of the wrong shape"):
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
    assert str(caught.value) == (
        f"{folder}: 3 weights hold NaN or infinity: temperature, text_projection.weight, "
        "vision_model.embeddings.batchnorm.running_var"
    )


def test_temperature_of_zero(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"align-small: the weight temperature is 0; logits are divided by it"):
        load_model(rewrite(folder, lambda weights: weights.update(temperature=torch.tensor(0.0))))


def test_folder_without_its_files(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"^the folder .*nowhere does not exist$"):
        load_model(folder / "nowhere")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"align-small holds no weights; one of model\.safetensors, "):
        load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"align-small holds no config\.json; give the folder of a transformers"):
        load_model(folder)


def test_truncated_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated, damaged or no safetensors file"):
        load_model(folder)


def test_configuration_that_is_not_understood(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ConfigurationError, match=r"config\.json: model_type is 'clip'; only 'align'"):
        load_model(folder)


def test_forged_sizes_take_no_memory(folder: Path) -> None:
    values = small_config(text_config={"vocab_size": 1 << 24, "hidden_size": 1 << 16, "intermediate_size": 1 << 16})
    (folder / "config.json").write_text(json.dumps(values))  # 4 TiB of word embeddings
    with pytest.raises(CheckpointError, match=r"word_embeddings\.weight \(in the file .* \(16777216, 65536\)\)"):
        load_model(folder)
