"""Every key of a ``config.json`` is used, ignored by name, or refused with a message that names it."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers.models.align.modeling_align import round_filters

from align_reference.config import AlignConfig, TextConfig, VisionConfig, known_part
from align_runtime.errors import ConfigurationError
from support.checkpoints import small_config

OLD_CONFIG = Path(__file__).parent / "data" / "config_4.27.json"  # as transformers 4.27.4 saved it


def test_defaults_are_those_of_transformers() -> None:
    dumped = transformers.AlignConfig().to_dict()
    config = AlignConfig.from_dict(json.loads(json.dumps(dumped)))
    assert config == AlignConfig(text=TextConfig(), vision=VisionConfig())
    for ours, section in ((config.text, "text_config"), (config.vision, "vision_config")):
        for field in fields(ours):
            value = getattr(ours, field.name)
            assert (list(value) if isinstance(value, tuple) else value) == dumped[section][field.name], field.name
    assert (config.projection_dim, config.temperature_init_value) == (640, 1.0)


def test_sub_configurations_of_transformers_load() -> None:
    assert TextConfig.from_dict(transformers.AlignTextConfig().to_dict()) == TextConfig()
    assert VisionConfig.from_dict(transformers.AlignVisionConfig().to_dict()) == VisionConfig()


def test_file_saved_by_transformers_loads(tmp_path: Path) -> None:
    values = small_config(temperature_init_value=0.5)
    transformers.AlignConfig.from_dict(values).save_pretrained(tmp_path)
    assert AlignConfig.from_file(tmp_path / "config.json") == AlignConfig.from_dict(values)


def test_file_of_the_first_release_loads() -> None:
    config = AlignConfig.from_file(OLD_CONFIG)
    assert config == AlignConfig(text=TextConfig(), vision=VisionConfig(image_size=289, hidden_dim=640))
    assert config.vision.num_blocks == 55  # not the 64 that the old file gives as num_hidden_layers
    assert config.vision.output_dim == 640


OTHER_TEXT: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "intermediate_size": 48,
    "hidden_act": "relu",
    "max_position_embeddings": 40,
    "type_vocab_size": 5,
    "layer_norm_eps": 1e-6,
    "pad_token_id": None,
}
OTHER_VISION: dict[str, Any] = {
    "image_size": [40, 30],
    "width_coefficient": 0.5,
    "depth_coefficient": 2,
    "depth_divisor": 4,
    "kernel_sizes": [5, 3],
    "in_channels": [32, 48],
    "out_channels": [48, 64],
    "depthwise_padding": [1],
    "strides": [2, 1],
    "num_block_repeats": [2, 1],
    "expand_ratios": [1, 3],
    "squeeze_expansion_ratio": 0.5,
    "hidden_act": "gelu",
    "hidden_dim": 77,
    "pooling_type": "max",
    "batch_norm_eps": 1e-5,
}


@pytest.mark.parametrize(("kind", "values"), [(TextConfig, OTHER_TEXT), (VisionConfig, OTHER_VISION)])
def test_every_field_is_read(kind: type[TextConfig] | type[VisionConfig], values: dict[str, Any]) -> None:
    config = kind.from_dict(values)
    default = kind()
    for field in fields(kind):
        if field.name == "num_channels":  # only 3 is possible
            continue
        value = getattr(config, field.name)
        assert (list(value) if isinstance(value, tuple) else value) == values[field.name]
        assert value != getattr(default, field.name), f"{field.name} is not tested: it has its default"


def test_round_filters_agrees_with_transformers() -> None:
    for divisor in (4, 8, 16):
        for coefficient in (0.1, 0.25, 0.5, 1.0, 1.1, 1.4, 1.6, 2.0, 2.2):
            ours = VisionConfig(width_coefficient=coefficient, depth_divisor=divisor)
            theirs = transformers.AlignVisionConfig(width_coefficient=coefficient, depth_divisor=divisor)
            for channels in (1, 3, 16, 24, 32, 40, 80, 112, 192, 320):
                assert ours.round_filters(channels) == round_filters(theirs, channels)


def changed(section: str | None, key: str, value: Any) -> dict[str, Any]:
    values = json.loads(json.dumps(small_config()))
    (values if section is None else values[section])[key] = value
    return values


REFUSED: list[tuple[str | None, str, Any, str]] = [
    (None, "model_type", "clip", "model_type is 'clip'; expected 'align'"),
    (None, "model_type", None, "model_type is None"),
    (None, "quantization_config", {}, "quantization_config is {}; only None is supported"),
    (None, "embedding_size", 16, "unknown key 'embedding_size'; an unknown key could change the embeddings"),
    (None, "projection_dim", 7, "the vision tower has 24 output channels and projection_dim is 7"),
    (None, "projection_dim", True, "projection_dim is True (bool); expected int"),
    (None, "temperature_init_value", "1", "temperature_init_value is '1' (str); expected float"),
    (None, "temperature_init_value", 10**400, "temperature_init_value is an integer of 1329 bits"),
    (None, "temperature_init_value", -0.07, "temperature_init_value is -0.07; expected a positive number, 1e-06 to"),
    (None, "temperature_init_value", 1e-310, "temperature_init_value is 1e-310; expected a positive number, 1e-06 to"),
    (None, "projection_dim", 10**4000, "projection_dim is 1000"),
    (None, "text_config", [], "text_config is [] (list); expected dict"),
    ("text_config", "model_type", "roberta", "text_config: model_type is 'roberta'"),
    ("text_config", "hidden_act", "gelu_10", "text_config: hidden_act is 'gelu_10'; known: gelu, gelu_new"),
    ("vision_config", "hidden_act", "selu", "vision_config: hidden_act is 'selu'; known: gelu, gelu_new"),
    ("text_config", "hidden_act", 3, "text_config: hidden_act is 3 (int); expected str"),
    ("text_config", "position_embedding_type", "relative_key", "only 'absolute' is supported"),
    ("text_config", "is_decoder", True, "text_config: is_decoder is True; only False is supported"),
    ("text_config", "pruned_heads", {"0": [1]}, "only {} is supported"),
    ("text_config", "embedding_size", 16, "text_config: unknown key 'embedding_size'"),
    ("text_config", "num_attention_heads", 5, "hidden_size 32 is not a multiple of num_attention_heads 5"),
    ("text_config", "hidden_size", 0, "hidden_size is 0; 1 to 65536 is supported"),
    ("text_config", "num_hidden_layers", 10**6, "num_hidden_layers is 1000000; 1 to 1024 is supported"),
    ("text_config", "vocab_size", 10**12, "vocab_size is 1000000000000"),
    ("text_config", "layer_norm_eps", -1.0, "layer_norm_eps is -1.0; expected a positive number"),
    ("text_config", "layer_norm_eps", 1e-310, "layer_norm_eps is 1e-310; expected a positive number, 1e-30 to 1"),
    ("text_config", "hidden_act", "x" * 5_000_000, "hidden_act is 'xxx"),
    ("text_config", "vocab_size", 10**4000, "vocab_size is 1000"),
    ("vision_config", "depthwise_padding", [10**4000], "depthwise_padding holds 1000"),
    ("vision_config", "image_size", 60_000, "image_size is 60000; expected one size, or a height and a width, of 1 to"),
    ("text_config", "pad_token_id", 10**4, "pad_token_id 10000 is outside the vocabulary"),
    ("vision_config", "num_channels", 1, "num_channels is 1; expected 3"),
    ("vision_config", "pooling_type", "sum", "pooling_type is 'sum'; expected mean or max"),
    ("vision_config", "kernel_sizes", [3, 3, 4], "kernel_sizes holds 4; kernels must be odd"),
    ("vision_config", "kernel_sizes", [3, 3], "kernel_sizes has 2 entries and in_channels 3"),
    ("vision_config", "kernel_sizes", "333", "kernel_sizes is '333' (str); expected list or tuple"),
    ("vision_config", "strides", [1, 2, 3], "strides holds 3; 1 to 2 is supported"),
    ("vision_config", "strides", [1, 2, 1.5], "strides is 1.5 (float); expected int"),
    ("vision_config", "in_channels", [32, 32, 24], "in_channels holds 32, but the previous stage has 16"),
    ("vision_config", "in_channels", [64, 16, 24], "in_channels holds 64, but the previous stage has 32"),
    ("vision_config", "num_block_repeats", [1, 1, 1000], "1104 blocks; at most 1024 are supported"),
    (
        "vision_config",
        "width_coefficient",
        1e308,
        "width_coefficient is 1e+308; expected a positive number, 0.001 to 64",
    ),
    (
        "vision_config",
        "depth_coefficient",
        1e308,
        "depth_coefficient is 1e+308; expected a positive number, 0.001 to 64",
    ),
    ("vision_config", "squeeze_expansion_ratio", 0, "squeeze_expansion_ratio is 0.0; expected a positive number"),
    ("vision_config", "image_size", 0, "image_size is 0; expected one size"),
    ("vision_config", "image_size", [9, 9, 9], "image_size is (9, 9, 9)"),
    ("vision_config", "hidden_sizes", [1], "vision_config: unknown key 'hidden_sizes'"),
]


@pytest.mark.parametrize(
    ("section", "key", "value", "message"), REFUSED, ids=[message[:60] for _, _, _, message in REFUSED]
)
def test_refused_with_a_message(section: str | None, key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        AlignConfig.from_dict(changed(section, key, value))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_many_unknown_keys_do_not_flood() -> None:
    values = small_config() | {f"key_{number:03d}": 0 for number in range(500)}
    with pytest.raises(ConfigurationError, match="'key_000', .* and 4.. more") as caught:
        AlignConfig.from_dict(values)
    assert len(str(caught.value)) < 500


def test_unknown_keys_are_ignored_on_request_and_listed() -> None:
    values = changed("text_config", "rope_theta", {"a": [1] * 1000}) | {"loss": "siglip"}
    values["vision_config"]["stem"] = None
    ignored: list[str] = []
    assert AlignConfig.from_dict(known_part(values, ignored)) == AlignConfig.from_dict(small_config())
    assert ignored[0] == "config.json: ignored the unknown key 'loss': 'siglip'"
    assert ignored[1].startswith("config.json: text_config: ignored the unknown key 'rope_theta': {'a': [1, 1, ")
    assert ignored[2] == "config.json: vision_config: ignored the unknown key 'stem': None"
    assert max(map(len, ignored)) < 250


def test_what_is_known_to_matter_is_never_ignored() -> None:
    for section, key, value in ((None, "quantization_config", {}), ("text_config", "is_decoder", True)):
        with pytest.raises(ConfigurationError, match=f"{key} is"):
            AlignConfig.from_dict(known_part(changed(section, key, value), []))


def test_a_file_of_another_kind_is_not_ignored_key_by_key() -> None:
    values = small_config() | {f"key_{number:03d}": 0 for number in range(101)}
    with pytest.raises(ConfigurationError, match="101 unknown keys; at most 100 are ignored.*'key_000'"):
        known_part(values, [])


def test_keys_of_googles_bert_are_ignored_by_name() -> None:
    values = small_config()
    sizes = ("pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head")
    values["text_config"] |= dict.fromkeys(sizes, 768) | {
        "directionality": "bidi", "pooler_type": "first_token_transform", "classifier_dropout": None,
    }  # fmt: skip
    assert AlignConfig.from_dict(values) == AlignConfig.from_dict(small_config())


def test_training_and_bookkeeping_keys_are_ignored() -> None:
    plain = small_config()
    noisy = small_config(initializer_range=0.5, torch_dtype="float16", _commit_hash=None, transformers_version="4.0")
    noisy["text_config"] |= {"hidden_dropout_prob": 0.9, "use_cache": True, "id2label": {"0": "a"}, "top_k": 3}
    noisy["vision_config"] |= {"drop_connect_rate": 0.9, "batch_norm_momentum": 0.1, "pad_token_id": None}
    assert AlignConfig.from_dict(noisy) == AlignConfig.from_dict(plain)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"model_type": "align"', "is not valid JSON"),
        (b"\x80\x02}q\x00.", "is not UTF-8 text"),
        (b"[1]", "holds a JSON list; expected an object"),
        (b'{"model_type": "align", "temperature_init_value": NaN}', "NaN is not a JSON number"),
    ],
)
def test_file_that_is_no_json_object(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=message) as caught:
        AlignConfig.from_file(path)
    assert str(path) in str(caught.value)


def test_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"config\.json does not exist"):
        AlignConfig.from_file(tmp_path / "config.json")
