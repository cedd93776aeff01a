"""Which inputs activation ranges, channel means and INT8 scales are measured on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from align_calibration.dataset.calibration_dataset import CalibrationDataset, select_dataset
from align_exporter.calibration_inputs import CalibrationInputs, PixelBatches
from align_exporter.checkpoint.read_checkpoint import Checkpoint
from align_exporter.graph.specs import text_contract, vision_contract
from align_reference.config import AlignConfig
from align_runtime import golden
from align_runtime.bundle import Bundle
from align_runtime.errors import ConfigurationError
from align_runtime.images import preprocess
from align_runtime.tokenizer import Tokenizer
from support.sample_folders import images, write_files

EXTREMES = 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_files(tmp_path / "photos", images(3))
    (tmp_path / "captions.txt").write_text("a cat\na photo of a dog\n", encoding="utf-8")
    return tmp_path


def inputs_of(bundle: Bundle, dataset: CalibrationDataset | None, holds_out: bool = False) -> CalibrationInputs:
    facts, preprocessing = bundle.manifest.model, bundle.manifest.preprocessing
    checkpoint = cast(Checkpoint, SimpleNamespace(facts=facts, preprocessing=preprocessing))
    tokenizer = Tokenizer.from_file(bundle.folder / "tokenizer.json", facts.max_length, facts.pad_token_id)
    return CalibrationInputs(golden.read(bundle), checkpoint, tokenizer, dataset, holds_out)


@pytest.mark.parametrize(("with_images", "with_captions"), [(False, False), (True, False), (False, True)])
def test_the_dataset_comes_after_the_built_in_samples(
    with_images: bool, with_captions: bool, folder: Path, tiny_bundle: Path, tiny_checkpoint: Path
) -> None:
    bundle = Bundle.open(tiny_bundle)
    sources = (folder / "photos" if with_images else None, folder / "captions.txt" if with_captions else None)
    subject = inputs_of(bundle, select_dataset(*sources, 10, 0) if any(sources) else None)
    config = AlignConfig.from_file(tiny_checkpoint / "config.json")
    plain = inputs_of(bundle, None)

    def batches(given: CalibrationInputs, contract: Any) -> list[Any]:
        found, count = given.for_ranges(contract)
        listed = list(found)
        assert len(listed) == count  # what the progress bar says
        return listed

    texts = text_contract(config)
    built_in, found = batches(plain, texts), batches(subject, texts)
    assert [batch["input_ids"].shape[0] for batch in found[len(built_in) :]] == [1, 1] * with_captions
    assert subject.for_means(texts) is None
    scales = subject.for_scales(texts)
    assert len(scales) == len(plain.answers.texts) + 2 * with_captions
    for batch, mask in zip(scales, plain.answers.attention_mask, strict=False):
        assert batch["input_ids"].shape == batch["attention_mask"].shape == (1, mask.sum())
        assert batch["attention_mask"].all()  # no padding

    size = bundle.manifest.preprocessing.output_size
    vision = vision_contract(config, size, "uint8")
    built_in, found = batches(plain, vision), batches(subject, vision)
    assert len(built_in) == len(plain.answers.pixels) + EXTREMES
    added = preprocess(list(images(3).values()), bundle.manifest.preprocessing)[: 3 * with_images]
    for batch, pixels in zip(found[len(built_in) :], added, strict=True):
        np.testing.assert_array_equal(batch["pixels"], pixels[None])

    means = list(subject.for_means(vision) or [])
    assert len(means) == len(plain.answers.pixels) + len(added)
    normalized = list(subject.for_means(vision_contract(config, size, "float32")) or [])
    for batch, pixels in zip(normalized, means, strict=True):
        expected = bundle.manifest.preprocessing.normalize(pixels["pixels"])
        np.testing.assert_array_equal(batch["pixel_values"], expected)


def test_images_for_scales_stay_bytes_for_every_pixel_input(
    folder: Path, tiny_bundle: Path, tiny_checkpoint: Path
) -> None:
    bundle = Bundle.open(tiny_bundle)
    config, preprocessing = AlignConfig.from_file(tiny_checkpoint / "config.json"), bundle.manifest.preprocessing
    subject = inputs_of(bundle, select_dataset(folder / "photos", None, 10, 0))
    pixels = preprocess(list(images(3).values()), preprocessing)
    size = preprocessing.output_size
    for pixel_input, name, expected in (
        ("uint8", "pixels", pixels),
        ("float32", "pixel_values", preprocessing.normalize(pixels)),
    ):
        kept = cast(PixelBatches, subject.for_scales(vision_contract(config, size, pixel_input)))
        assert [batch.dtype for batch in kept.pixels] == [np.uint8] * 3
        assert len(kept) == 3
        for _ in range(2):  # they are run many times
            np.testing.assert_array_equal(np.concatenate([batch[name] for batch in kept]), expected)
        np.testing.assert_array_equal(kept[1:][0][name], expected[1:2])
    built_in = inputs_of(bundle, None).for_scales(vision_contract(config, size, "uint8"))
    assert len(built_in) == len(subject.answers.pixels)


def test_every_fourth_sample_is_held_out(tmp_path: Path, tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    write_files(tmp_path / "photos", images(32))
    bundle = Bundle.open(tiny_bundle)
    dataset = select_dataset(tmp_path / "photos", None, 100, 0)
    everything, subject = inputs_of(bundle, dataset), inputs_of(bundle, dataset, holds_out=True)
    config = AlignConfig.from_file(tiny_checkpoint / "config.json")
    size = bundle.manifest.preprocessing.output_size
    for contract, name in ((vision_contract(config, size, "uint8"), "pixels"), (text_contract(config), "input_ids")):
        listed = [batch[name].tobytes() for batch in everything.for_scales(contract)]
        held_out = [batch[name].tobytes() for batch in subject.held_out(contract)]
        assert held_out == listed[::4]
        rest = [text for index, text in enumerate(listed) if index % 4]
        assert [batch[name].tobytes() for batch in subject.for_scales(contract)] == rest


@pytest.mark.parametrize(("count", "held_out"), [(3, 1), (28, 7), (29, 8)])
def test_a_target_needs_enough_held_out_images(count: int, held_out: int, tmp_path: Path, tiny_bundle: Path) -> None:
    write_files(tmp_path / "photos", images(count))
    subject = inputs_of(Bundle.open(tiny_bundle), select_dataset(tmp_path / "photos", None, 100, 0), holds_out=True)
    if held_out >= 8:
        subject.check_held_out()
        return
    with pytest.raises(ConfigurationError, match=rf"^{held_out} images .*\b29\b.*--calibration-images"):
        subject.check_held_out()
