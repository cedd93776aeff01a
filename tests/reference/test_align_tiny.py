"""align-tiny: complete, small, equal to transformers on the same files, and accurate on what it was trained for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors import safe_open
from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil

from align_reference.config import AlignConfig
from align_reference.vision import block_shapes
from support.oracle import MAX_OUTPUT_DIFFERENCE, output_differences
from training.captions import LABEL_TEMPLATE, label
from training.digits import digits
from training.evaluate import RENDERINGS, Evaluation, evaluate
from training.folder import encode, read_folder
from training.pools import pixel_values, prepare
from training.vocabulary import build_tokenizer

FOLDER = Path(__file__).parents[2] / "reference" / "align-tiny"
DEMO = json.loads((FOLDER / "demo" / "captions.json").read_text())
FRESH_SEED = 555_001  # of this file alone


def _images() -> list[Image.Image]:
    return [Image.open(FOLDER / "demo" / entry["file"]).convert("RGB") for entry in DEMO["images"]]


def _texts() -> list[str]:
    labels = [DEMO["template"].format(name) for name in DEMO["labels"]]
    return labels + [entry["caption"] for entry in DEMO["images"]]


@pytest.fixture(scope="module")
def fresh() -> Evaluation:
    return evaluate(FOLDER, FRESH_SEED)


def test_folder_is_small() -> None:
    assert (FOLDER / "model.safetensors").stat().st_size <= 8_000_000
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 8_500_000


def test_weights_are_float32_and_those_of_transformers() -> None:
    expected = transformers.AlignModel(transformers.AlignConfig.from_pretrained(FOLDER)).state_dict()
    with safe_open(FOLDER / "model.safetensors", framework="pt") as file:
        stored = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        assert {name: list(tensor.shape) for name, tensor in expected.items()} == {
            name: tensor.get_shape() for name, tensor in stored.items()
        }
        types = {tensor.get_dtype() for name, tensor in stored.items() if not name.endswith("num_batches_tracked")}
    assert types == {"F32"}


def test_architecture_has_every_feature_of_b7() -> None:
    config = AlignConfig.from_file(FOLDER / "config.json")
    shapes = list(block_shapes(config.vision))
    assert len(shapes) >= 16
    assert {shape.expand_ratio for shape in shapes} == {1, 6}
    assert {shape.kernel_size for shape in shapes} == {3, 5}
    assert {(shape.kernel_size, shape.stride) for shape in shapes} == {(3, 1), (3, 2), (5, 1), (5, 2)}
    assert {(shape.expand_ratio, shape.residual) for shape in shapes} == {(1, True), (1, False), (6, True), (6, False)}
    assert config.vision.width_coefficient != 1
    assert config.vision.depth_coefficient != 1
    assert config.vision.image_size == 65
    assert config.text.num_hidden_layers >= 4


def test_preprocessing_resizes_then_crops_to_the_odd_size() -> None:
    values = json.loads((FOLDER / "preprocessor_config.json").read_text())
    assert values["size"] == {"height": 76, "width": 76}
    assert values["crop_size"] == {"height": 65, "width": 65}
    assert (values["do_resize"], values["do_center_crop"], values["do_rescale"]) == (True, True, True)
    assert (values["do_normalize"], values["include_top"], values["rescale_offset"]) == (False, False, True)
    assert values["resample"] == Image.Resampling.BILINEAR
    assert values["rescale_factor"] == 0.00784313725490196


def test_demo_is_what_captions_json_says() -> None:
    files = {path.name for path in (FOLDER / "demo").iterdir()} - {"captions.json"}
    assert files == {entry["file"] for entry in DEMO["images"]}
    assert len(files) == 8
    assert {entry["label"] for entry in DEMO["images"]} < set(DEMO["labels"])
    assert len({image.size for image in _images()}) > 1


def test_equal_to_transformers_from_image_and_text() -> None:
    oracle = transformers.AlignModel.from_pretrained(FOLDER).eval()
    processor = EfficientNetImageProcessorPil.from_pretrained(FOLDER)
    words = transformers.AutoTokenizer.from_pretrained(FOLDER)
    texts, images = _texts(), _images()
    tokens = words(texts, padding=True, return_tensors="pt")
    pixels = processor(images, return_tensors="pt")["pixel_values"]

    model, tokenizer, size = read_folder(FOLDER)
    input_ids, attention_mask = encode(tokenizer, texts)
    own_pixels = pixel_values(np.stack([np.asarray(prepare(image, size)) for image in images]))
    assert torch.equal(input_ids, tokens["input_ids"])
    assert torch.equal(attention_mask, tokens["attention_mask"])
    # x·0.00784313725490196 − 1 against x/127.5 − 1: half a unit in the last place of values up to 2.
    torch.testing.assert_close(own_pixels, pixels, rtol=0, atol=2.4e-7)

    with torch.inference_mode():
        states = {"output_hidden_states": True, "output_attentions": True}
        expected = oracle(**tokens, pixel_values=pixels, **states)
        observed = model(input_ids, own_pixels, attention_mask, **states)
    # Unit vectors through 17 blocks and 4 layers in float32; measured below 1e-6.
    torch.testing.assert_close(observed.image_embeds, expected.image_embeds, rtol=0, atol=1e-5)
    torch.testing.assert_close(observed.text_embeds, expected.text_embeds, rtol=0, atol=1e-5)
    for tower in ("text_model_output", "vision_model_output"):
        differences = output_differences(getattr(observed, tower), getattr(expected, tower))
        assert max(differences.values()) <= MAX_OUTPUT_DIFFERENCE, differences


def test_padding_to_the_full_length_changes_nothing() -> None:
    model, tokenizer, _ = read_folder(FOLDER)
    input_ids, attention_mask = encode(tokenizer, _texts())
    missing = (0, model.config.text.max_position_embeddings - input_ids.shape[1])
    padded = [torch.nn.functional.pad(tensor, missing) for tensor in (input_ids, attention_mask)]
    with torch.inference_mode():
        short, long = model.get_text_features(input_ids, attention_mask), model.get_text_features(*padded)
    torch.testing.assert_close(short, long, rtol=1e-4, atol=1e-4)  # features of a length near 10


def test_demo_is_classified_right() -> None:
    model, tokenizer, size = read_folder(FOLDER)
    pixels = pixel_values(np.stack([np.asarray(prepare(image, size)) for image in _images()]))
    with torch.inference_mode():
        output = model(*_with_mask(encode(tokenizer, _texts()), pixels))
    answers = output.logits_per_image[:, : len(DEMO["labels"])].argmax(dim=1).tolist()
    assert [DEMO["labels"][answer] for answer in answers] == [entry["label"] for entry in DEMO["images"]]
    nearest_captions = output.logits_per_image[:, len(DEMO["labels"]) :].argmax(dim=1).tolist()
    assert nearest_captions == list(range(len(DEMO["images"])))


def _with_mask(
    tokens: tuple[torch.Tensor, torch.Tensor], pixels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return tokens[0], pixels, tokens[1]


def test_fresh_drawn_classes(fresh: Evaluation) -> None:
    assert len(fresh.shapes.labels) >= 40
    assert all(sum(row) >= 10 for row in fresh.shapes.confusion)
    assert fresh.shapes.top1 >= 0.95


def test_fresh_digits(fresh: Evaluation) -> None:
    assert fresh.digits.labels == tuple(label(word) for word in _NUMBERS)
    assert [sum(row) for row in fresh.digits.confusion] == [45 * RENDERINGS] * 10
    assert fresh.digits.top1 >= 0.90


_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def test_embeddings_are_spread_out(fresh: Evaluation) -> None:
    """A collapsed model would make every parity figure meaningless."""
    assert abs(fresh.mean_image_cosine) < 0.5
    assert abs(fresh.mean_text_cosine) < 0.5
    assert fresh.matching_cosine > max(fresh.mean_image_cosine, fresh.mean_text_cosine) + 0.3


def test_digits_of_the_test_part_are_never_trained_on() -> None:
    train, test = digits("train"), digits("test")
    assert not set(train.source.tolist()) & set(test.source.tolist())
    assert sorted([*train.source.tolist(), *test.source.tolist()]) == list(range(1797))
    assert np.bincount(test.values).tolist() == [45] * 10


def test_recorded_evaluation_is_this_model() -> None:
    recorded = json.loads((FOLDER / "evaluation.json").read_text())
    model, _, _ = read_folder(FOLDER)
    assert recorded["temperature"] == pytest.approx(model.temperature.item(), rel=1e-6)
    assert recorded["shapes"]["top1"] >= 0.95
    assert recorded["digits"]["top1"] >= 0.90


def test_vocabulary_is_rebuilt_the_same_and_spells_ascii() -> None:
    _, tokenizer, _ = read_folder(FOLDER)
    assert json.loads(build_tokenizer().to_str()) == json.loads(tokenizer.to_str())
    words = (FOLDER / "vocab.txt").read_text().split("\n")
    assert words[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert {word: index for index, word in enumerate(words[:-1])} == tokenizer.get_vocab()
    printable = "".join(map(chr, range(32, 127)))
    text = f"{printable} zebra2go x9z8 {LABEL_TEMPLATE}"
    assert "[UNK]" not in tokenizer.encode(text).tokens
