"""The canonical configuration: read from every form on the Hub, and its float arithmetic; the errors."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import numpy
import pytest
from PIL import Image
from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil

from align_runtime.errors import ConfigurationError, InputError
from align_runtime.hub_preprocessing import DEFAULTS, IGNORED, NEUTRAL
from align_runtime.image_size import Size
from align_runtime.preprocessing import CANONICAL_KEYS, ImagePreprocessing

ALIGN_BASE: dict[str, Any] = {
    "crop_size": {"height": 289, "width": 289},
    "do_center_crop": True,
    "do_normalize": False,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "EfficientNetImageProcessor",
    "image_std": [0.229, 0.224, 0.225],
    "include_top": False,
    "processor_class": "AlignProcessor",
    "resample": 2,
    "rescale_factor": 0.00784313725490196,
    "rescale_offset": True,
    "size": {"height": 346, "width": 346},
}


def read(**config: Any) -> ImagePreprocessing:
    return ImagePreprocessing.from_hub(config, "file.json")


def oracle(image: Any, config: dict[str, Any]) -> numpy.ndarray:
    """pixel_values (1, 3, height, width) of transformers; uint8 if nothing is rescaled or normalized."""
    processor = EfficientNetImageProcessorPil(**config)
    return processor([image], return_tensors="np")["pixel_values"]


def test_the_published_configuration() -> None:
    assert ImagePreprocessing.from_hub(ALIGN_BASE, "file.json") == ImagePreprocessing(
        size=Size(("height", "width"), (346, 346)),
        resample=2,
        crop_size=(289, 289),
        rescale_factor=0.00784313725490196,
        rescale_offset=True,
        image_mean=None,
        image_std=None,
        include_top=False,
    )


def test_absent_keys_get_the_defaults_of_the_class() -> None:
    assert DEFAULTS["image_mean"] == DEFAULTS["image_std"] == [0.5, 0.5, 0.5]
    for key, value in EfficientNetImageProcessorPil().to_dict().items():
        if key in DEFAULTS:
            assert json.loads(json.dumps(value)) == DEFAULTS[key], key
        else:
            assert key in IGNORED or value in NEUTRAL[key], key
    assert EfficientNetImageProcessorPil.default_to_square is DEFAULTS["default_to_square"]
    assert read() == read(**DEFAULTS)


def test_every_key_of_the_class_is_known() -> None:
    known = {*DEFAULTS, *IGNORED, *NEUTRAL}
    assert set(EfficientNetImageProcessorPil.valid_kwargs.__annotations__) <= known


FLOATS = [
    {"do_rescale": rescale, "rescale_offset": offset, "do_normalize": normalize, "include_top": top}
    for rescale, offset, normalize, top in itertools.product([True, False], repeat=4)
]
VALUES: list[dict[str, Any]] = [
    {},
    {"rescale_factor": 0.00784313725490196, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
    {"rescale_factor": 1 / 127.5, "image_mean": 0.1, "image_std": 0.3},
    {"rescale_factor": 2, "image_mean": [0, 1, 2], "image_std": [1, 3, 1e-3]},
]


@pytest.mark.parametrize("values", VALUES, ids=range(4))
@pytest.mark.parametrize("flags", FLOATS, ids=lambda flags: "".join("01"[flag] for flag in flags.values()))
def test_float_values_are_bit_equal(flags: dict[str, bool], values: dict[str, Any]) -> None:
    """Every value of every channel in every combination of steps."""
    levels = numpy.arange(256, dtype=numpy.uint8)
    array = numpy.stack([levels, levels[::-1], numpy.roll(levels, 99)], axis=-1).reshape(16, 16, 3)
    config = {**flags, **values, "size": 16}
    expected = oracle(array, config)
    untouched = not (flags["do_rescale"] or flags["do_normalize"] or flags["include_top"])
    assert expected.dtype == (numpy.uint8 if untouched else numpy.float32)
    ours = read(**config)
    numpy.testing.assert_array_equal(ours.normalize(array[None]), expected.astype(numpy.float32), strict=True)

    scale, offset = ours.scale_and_offset()
    assert (scale.dtype, scale.shape, offset.shape) == (numpy.float64, (3,), (3,))
    affine = (array * scale + offset).transpose(2, 0, 1)[None]
    # A float32 value has 24 bits; there are four rounding errors of the size of the largest term.
    largest = numpy.abs(array * scale).max() + numpy.abs(offset).max()
    numpy.testing.assert_allclose(affine, expected, rtol=0, atol=4 * 2.0**-24 * largest)


def test_normalize_takes_only_pixels() -> None:
    config = ImagePreprocessing.from_hub(ALIGN_BASE, "file.json")
    assert config.normalize(numpy.zeros((0, 4, 5, 3), numpy.uint8)).shape == (0, 3, 4, 5)
    with pytest.raises(InputError, match=r"float32 \(1, 4, 5, 3\)"):
        config.normalize(numpy.zeros((1, 4, 5, 3), numpy.float32))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"uint8 \(1, 3, 4, 5\)"):
        config.normalize(numpy.zeros((1, 3, 4, 5), numpy.uint8))


CONFIGS: list[dict[str, Any]] = [
    ALIGN_BASE,
    {},
    {"size": 40},
    {"size": [40, 50]},
    {"size": (40, 50)},
    {"size": 40, "default_to_square": False, "do_center_crop": True, "crop_size": 33},
    {"size": 40, "default_to_square": None, "do_center_crop": True, "crop_size": 33},
    {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": [33, 50]},
    {"size": {"shortest_edge": 40, "longest_edge": 44}, "do_center_crop": True},
    {"size": {"max_height": 40, "max_width": 70}, "do_center_crop": True},
    {"do_resize": False, "do_center_crop": True},
    {"do_resize": None, "do_center_crop": True, "size": None, "resample": None},
    {"do_center_crop": None, "crop_size": None},
    {"do_rescale": None, "rescale_factor": None},
    {"do_normalize": None, "image_mean": None},
    {"do_normalize": False, "include_top": None, "image_mean": None, "image_std": None},
    {"rescale_offset": None, "resample": 0},
    {"do_pad": False, "pad_size": None, "data_format": "channels_first", "input_data_format": None, "device": None},
    {"return_tensors": None, "disable_grouping": None, "image_seq_length": None, "do_convert_rgb": True},
    {"image_processor_type": "EfficientNetImageProcessorFast", "_valid_processor_keys": ["images"]},
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_every_form_means_what_it_means_to_transformers(config: dict[str, Any]) -> None:
    """The forms that are written mean the same, to transformers and to us."""
    ours = ImagePreprocessing.from_hub(config, "file.json")
    assert ImagePreprocessing.from_hub(ours.to_hub(), "file.json") == ours
    assert ImagePreprocessing.from_json(json.loads(json.dumps(ours.to_json())), "align.json") == ours
    assert tuple(ours.to_json()) == CANONICAL_KEYS
    assert hash(ours) == hash(ImagePreprocessing.from_hub(config, "file.json"))

    image = Image.frombytes("RGB", (61, 47), numpy.random.default_rng(0).bytes(61 * 47 * 3))
    expected = oracle(image, config)
    numpy.testing.assert_array_equal(oracle(image, ours.to_hub()), expected, strict=True)
    assert ours.output_size == expected.shape[2:]


def test_values_of_steps_that_are_off_are_ignored() -> None:
    base = {**ALIGN_BASE, "do_resize": False, "do_rescale": False}
    other = {**base, "size": 17, "resample": 5, "rescale_factor": 3.0, "image_mean": [9, 9, 9], "image_std": [7, 7, 7]}
    assert read(**base) == read(**other)
    assert read(**base) != read(**ALIGN_BASE)


def test_explicit_hub_form() -> None:
    explicit = read(**ALIGN_BASE).to_hub()
    assert set(DEFAULTS) - {"default_to_square"} <= set(explicit)
    assert explicit["image_processor_type"] == "EfficientNetImageProcessor"
    assert explicit["do_resize"] is True
    assert explicit["do_normalize"] is False
    assert explicit["size"] == {"height": 346, "width": 346}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"do_flip": True}, "'do_flip' .*True"),
    ({"size_divisor": 32}, "'size_divisor'"),
    ({"auto_map": {"AutoImageProcessor": "x.Y"}}, "auto_map"),
    ({"image_processor_type": "CLIPImageProcessor"}, "image_processor_type is 'CLIPImageProcessor'"),
    ({"do_pad": True}, r"do_pad is True"),
    ({"pad_size": {"height": 9, "width": 9}}, r"pad_size is \{.*\}"),
    ({"data_format": "channels_last"}, r"data_format is 'channels_last'"),
    ({"input_data_format": "channels_last"}, r"input_data_format is 'channels_last'"),
    ({"return_tensors": "pt"}, r"return_tensors is 'pt'"),
    ({"device": "cuda"}, r"device is 'cuda'"),
    ({"image_seq_length": 7}, r"image_seq_length is 7"),
    ({"do_resize": 1}, r"do_resize is 1 \(int\); expected bool"),
    ({"do_rescale": "yes"}, r"do_rescale is 'yes' \(str\); expected bool"),
    ({"resample": 6}, "resample is 6"),
    ({"resample": -1}, "resample is -1"),
    ({"resample": True}, r"resample is True \(bool\); expected int"),
    ({"resample": 2.0}, r"resample is 2\.0 \(float\); expected int"),
    ({"resample": "bilinear"}, r"resample is 'bilinear' \(str\); expected int"),
    ({"resample": None}, r"resample is null although do_resize"),
    ({"size": None}, r"size is null although do_resize"),
    ({"do_center_crop": True, "crop_size": None}, r"crop_size is null although do_center_crop"),
    ({"rescale_factor": None}, r"rescale_factor is null although do_rescale"),
    ({"image_mean": None}, r"image_mean is null although do_normalize"),
    ({"image_std": None}, r"image_std is null although do_normalize"),
    ({"image_std": None, "do_normalize": False}, r"image_std is null although include_top"),
    ({"size": {"height": 9}}, r"size has the keys \['height'\]"),
    ({"size": {"longest_edge": 9}}, r"size has the keys \['longest_edge'\]"),
    ({"size": {"min_pixels": 9, "max_pixels": 99}}, r"size has the keys \['max_pixels', 'min_pixels'\]"),
    ({"size": {"height": 9, "width": 9, "longest_edge": None}}, r"size has the keys"),
    ({"size": {"height": 0, "width": 9}}, r"size\.height is 0;"),
    ({"size": 8193}, r"size\.height is 8193;"),
    ({"size": 10**400}, r"size\.height is 1000+"),
    ({"size": -5}, r"size\.height is -5;"),
    ({"size": True}, r"size is True \(bool\); expected dict"),
    ({"size": 9.0}, r"size is 9\.0 \(float\); expected dict"),
    ({"size": [9]}, r"size is \[9\]"),
    ({"size": [9, 9, 3]}, r"size is \[9, 9, 3\]"),
    ({"size": {"height": "9", "width": 9}}, r"size\.height is '9' \(str\); expected int"),
    ({"do_center_crop": True, "crop_size": {"shortest_edge": 9}}, r"crop_size is \{.*\}; expected a height"),
    ({"size": {"shortest_edge": 40}}, r"depends on the image \(with size \{'shortest_edge': 40\}"),
    ({"size": 40, "default_to_square": False}, "depends on the image"),
    ({"do_resize": False}, r"depends on the image \(without a resize"),
    ({"rescale_factor": float("nan")}, r"rescale_factor is nan; expected a finite"),
    ({"rescale_factor": float("inf")}, r"rescale_factor is inf; expected a finite"),
    ({"rescale_factor": 10**400}, "rescale_factor is .*1329 bits"),
    ({"rescale_factor": 1e300}, r"rescale_factor 1e\+300.*not finite"),
    ({"rescale_factor": "0.1"}, r"rescale_factor is '0\.1' \(str\); expected float"),
    ({"image_mean": [0.5, float("nan"), 0.5]}, r"image_mean is nan; expected a finite"),
    ({"image_mean": [0.5, 0.5]}, "image_mean has 2 values"),
    ({"image_mean": "0.5"}, r"image_mean is '0\.5' \(str\); expected float"),
    ({"image_std": [0.5, 0, 0.5]}, "not finite"),
    ({"image_std": 1e-60}, "not finite"),
    ({"do_normalize": False, "image_std": [float("-inf")] * 3}, r"image_std is -inf; expected a finite"),
]


@pytest.mark.parametrize(("config", "message"), REFUSED, ids=[str(config)[:60] for config, _ in REFUSED])
def test_unsupported_configurations_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^file.json: .*{message}") as caught:
        read(**config)
    assert "\n" not in str(caught.value)


def test_the_canonical_form_is_strict() -> None:
    canonical = read(**ALIGN_BASE).to_json()
    with pytest.raises(ConfigurationError, match=r"^align\.json: .*unknown keys \['do_resize'\]"):
        ImagePreprocessing.from_json({**canonical, "do_resize": True}, "align.json")
    for key in CANONICAL_KEYS:
        with pytest.raises(ConfigurationError, match=rf"missing keys \['{key}'\]"):
            ImagePreprocessing.from_json({k: v for k, v in canonical.items() if k != key}, "align.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resample": None}, "resample is None"),
        ({"rescale_factor": None}, "rescale_offset"),
        ({"image_std": [1, 1, 1]}, r"image_std is \(1\.0, 1\.0, 1\.0\)"),
        ({"include_top": True}, r"image_std is None.*include_top \(True\)"),
        ({"include_top": None}, r"include_top is None \(NoneType\); expected bool"),
        ({"crop_size": [289, 289]}, r"crop_size is \[289, 289\] \(list\); expected dict"),
        ({"image_mean": 0.5}, r"image_mean is 0\.5 \(float\); expected list"),
    ],
)
def test_contradictions_in_the_canonical_form(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^align.json: .*{message}"):
        ImagePreprocessing.from_json({**read(**ALIGN_BASE).to_json(), **changes}, "align.json")


ODD = [None, True, False, 0, 1, 2.5, -3, 1e300, float("nan"), 10**400, "x", [], [1, 2], [1, 2, 3], ["a", 1, None], {}]
ODD += [{"height": 3, "width": 4}, {"height": "a", "width": None}, {"shortest_edge": 3}, [[1]] * 3]


def test_odd_values_are_read_or_refused() -> None:
    """Whatever the file contains, the result is a configuration that can be written and read again, or an error."""
    draw = random.Random(5)
    read_back, refusals = 0, []
    for _ in range(4000):
        config = {draw.choice([*DEFAULTS, *NEUTRAL]): draw.choice(ODD) for _ in range(draw.choice([1, 1, 2]))}
        try:
            ours = read(**config)
        except ConfigurationError as error:
            refusals.append(str(error))
        else:
            assert ImagePreprocessing.from_hub(ours.to_hub(), "again") == ours
            read_back += 1
    assert min(read_back, len(refusals)) > 400
    assert not any("\n" in message for message in refusals)
