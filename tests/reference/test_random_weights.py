"""Random weights that behave like trained ones: different inputs stay apart, small disturbances small."""

from __future__ import annotations

import pytest
import torch

from align_reference.activations import ACTIVATIONS
from align_reference.config import AlignConfig
from align_reference.model import AlignModel, unit_length
from align_reference.random_weights import random_model
from align_runtime.errors import ConfigurationError
from support.checkpoints import build_model, pixel_values, small_config, token_batch


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@torch.inference_mode()
def test_small_disturbances_stay_small_and_images_apart(activation: str) -> None:
    model = build_model(small_config(vision_config={"hidden_act": activation}))
    images = pixel_values(6, 65, seed=1)  # not those that set the statistics
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    embeds, disturbed = (unit_length(model.get_image_features(pixels)) for pixels in (images, images + 1e-3 * noise))
    assert (embeds * disturbed).sum(dim=1).min() > 0.999
    cosines = embeds @ embeds.T - 2 * torch.eye(len(images))
    assert cosines.max() < 0.97


@torch.inference_mode()
def test_texts_stay_apart() -> None:
    model = build_model(small_config())
    embeds = unit_length(model.get_text_features(*token_batch(model.config, 6, 12, seed=1)))
    assert (embeds @ embeds.T - 2 * torch.eye(6)).max() < 0.999


def test_a_seed_decides() -> None:
    config, images = AlignConfig.from_dict(small_config()), pixel_values(4, 65)
    first, again, other = (random_model(config, seed, images).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(again[key], tensor) for key, tensor in first.items())
    differing = [key for key, tensor in first.items() if not torch.equal(other[key], tensor)]
    same = first.keys() - set(differing)
    assert same == {"temperature"} | {key for key in first if key.endswith("num_batches_tracked")}


def test_a_fresh_model_collapses_and_this_one_does_not() -> None:
    config = AlignConfig.from_dict(small_config(vision_config={"depth_coefficient": 4.0}))
    images = pixel_values(4, 65)
    torch.manual_seed(0)
    with torch.inference_mode():
        fresh = AlignModel(config).eval().get_image_features(images).std(dim=0).mean()
        ours = random_model(config, 0, images).get_image_features(images).std(dim=0).mean()
    assert fresh < 1e-2 * ours


def test_no_gradients_and_evaluation_mode() -> None:
    model = random_model(AlignConfig.from_dict(small_config()), 0, pixel_values(2, 65))
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_forged_size_is_refused_before_memory_is_taken() -> None:
    config = AlignConfig.from_dict(small_config(text_config={"vocab_size": 1 << 24, "hidden_size": 1 << 12}))
    with pytest.raises(ConfigurationError, match="parameters; at most 2,147,483,648 are supported"):
        random_model(config, 0, pixel_values(2, 65))
