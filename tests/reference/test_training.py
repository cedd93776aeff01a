"""The training scripts: captions that are true of their images, ALIGN's loss, reproducible runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from align_reference.activations import ACTIVATIONS
from align_reference.model import AlignModel, contrastive_loss
from training.captions import FULL_TEMPLATE, TEMPLATES, UNSAID, full_caption, random_caption
from training.drawing import draw
from training.folder import encode, read_folder, write_folder
from training.objective import describes, shared_contrastive_loss
from training.pools import held_out_shapes, pixel_values, prepare, training_pool
from training.presets import MAX_TOKENS, PRESETS, TINY, ImageSize, Phase
from training.scenes import COLOURS, FIELDS, SUBJECTS, random_scene
from training.train import fuse_swish, schedule, train, train_one_phase
from training.vocabulary import build_tokenizer

MINUTE = replace(
    TINY,
    batch_size=8,
    image=ImageSize(resize=40, crop=33),
    phases=tuple(Phase(steps=2, pool_size=24, digit_share=share, learning_rate=1e-3) for share in (0.0, 1.0)),
)


@pytest.fixture(scope="module")
def trained() -> tuple[AlignModel, Tokenizer]:
    """The model after both phases, and its tokenizer."""
    return train(MINUTE, seed=1, workers=1)


def test_captions_say_what_their_codes_say() -> None:
    rng = np.random.default_rng(3)
    for subject in SUBJECTS * 20:
        scene = random_scene(rng, subject)
        caption = random_caption(scene, rng)
        for field, code in zip(FIELDS, caption.codes, strict=True):
            if field in ("subject", "position"):  # these have several wordings
                assert code in (UNSAID, FIELDS[field].index(getattr(scene, field)))
            elif code == UNSAID:
                assert field == "background" or f" {getattr(scene, field)} " not in f" {caption.text} "
            else:
                assert FIELDS[field][code] in caption.text


def test_full_caption_says_everything_and_fits() -> None:
    rng = np.random.default_rng(4)
    scenes = [random_scene(rng, subject) for subject in SUBJECTS * 5]
    assert len({full_caption(scene) for scene in scenes}) == len(set(scenes))
    input_ids, _ = encode(build_tokenizer(), [full_caption(scene) for scene in scenes])
    assert input_ids.shape[1] < MAX_TOKENS
    assert FULL_TEMPLATE in [template for _, template in TEMPLATES]


def test_shares_of_the_templates_add_up() -> None:
    assert sum(share for share, _ in TEMPLATES) == pytest.approx(1)


def test_subject_is_drawn_where_and_as_it_is_said() -> None:
    rng = np.random.default_rng(5)
    scene = replace(random_scene(rng, "circle", "red"), background="white", texture="plain", position="left")
    pixels = np.asarray(draw(scene, rng), dtype=np.float64)
    red = (np.abs(pixels - COLOURS["red"]).max(axis=-1) < 40).nonzero()
    assert len(red[0]) > 100
    assert red[1].mean() < 0.4 * pixels.shape[1]
    assert abs(red[0].mean() / pixels.shape[0] - 0.5) < 0.1


def test_digit_without_strokes_is_refused() -> None:
    rng = np.random.default_rng(6)
    with pytest.raises(ValueError, match="strokes"):
        draw(random_scene(rng, "seven"), rng)


def test_describes_needs_every_word_to_be_true() -> None:
    said = torch.tensor([[1, UNSAID], [UNSAID, UNSAID], [1, 2]])
    shown = torch.tensor([[1, 2], [1, 3], [0, 2]])
    assert describes(said, shown).tolist() == [[True, True, False], [True, True, True], [True, False, False]]


def test_loss_is_that_of_align_where_only_pairs_match() -> None:
    logits = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)) * 5
    pairs = torch.eye(6, dtype=torch.bool)
    torch.testing.assert_close(shared_contrastive_loss(logits, pairs), contrastive_loss(logits))
    both = pairs.clone()
    both[0, 1] = True
    assert not torch.isclose(shared_contrastive_loss(logits, both), contrastive_loss(logits))


def test_schedule_rises_and_falls_to_nothing() -> None:
    shares = [schedule(step, 100) for step in range(101)]
    assert shares[0] == pytest.approx(1 / 6)
    assert max(shares) == shares[5] == 1
    assert shares[100] == pytest.approx(0, abs=1e-12)
    assert shares[6:] == sorted(shares[6:], reverse=True)


@pytest.mark.slow
def test_pool_does_not_depend_on_the_workers() -> None:
    alone, together = (training_pool(1, range(6), 0.5, TINY.image, workers) for workers in (1, 2))
    assert alone.scenes == together.scenes
    np.testing.assert_array_equal(alone.pixels, together.pixels)


def test_preparation_is_a_resize_a_crop_and_a_range() -> None:
    rng = np.random.default_rng(7)
    image = draw(random_scene(rng, "star"), rng)
    cropped = prepare(image, ImageSize(resize=76, crop=65))
    assert cropped.size == (65, 65)
    assert cropped.getpixel((0, 0)) == image.resize((76, 76), resample=2).getpixel((5, 5))
    values = pixel_values(np.array([[[[0, 51, 255]]]], dtype=np.uint8))
    torch.testing.assert_close(values.flatten(), torch.tensor([-1.0, -0.6, 1.0]))


def test_held_out_images_are_not_those_of_training() -> None:
    pool, held_out = training_pool(1, range(40), 0.5, TINY.image, 1), held_out_shapes(1, 1, TINY.image)
    assert len(held_out.scenes) == 64
    assert not {row.tobytes() for row in pool.pixels} & {row.tobytes() for row in held_out.pixels}


def test_what_training_writes_can_be_read(trained: tuple[AlignModel, Tokenizer], tmp_path: Path) -> None:
    first, tokenizer = trained
    weights = first.state_dict()
    write_folder(tmp_path, first, tokenizer, MINUTE.image)
    model, _, image = read_folder(tmp_path)
    assert image == MINUTE.image
    assert model.config == first.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_training_is_repeatable_phase_by_phase(trained: tuple[AlignModel, Tokenizer], tmp_path: Path) -> None:
    """How the committed model was made: a second run, with one phase per process, gives the same weights."""
    whole, _ = trained
    for number in range(2):
        model, tokenizer = train_one_phase(MINUTE, number, seed=1, workers=1, before=tmp_path)
        write_folder(tmp_path, model, tokenizer, MINUTE.image)
    weights = whole.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    other, _ = train(replace(MINUTE, phases=MINUTE.phases[:1]), seed=2, workers=1)
    assert not torch.equal(other.state_dict()["text_projection.weight"], weights["text_projection.weight"])


def test_fused_swish_is_the_same_function() -> None:
    model = AlignModel(TINY.config(159))
    fuse_swish(model)
    stem, first = model.vision_model.embeddings, model.vision_model.encoder.blocks[0]
    assert stem.activation is first.depthwise_conv.activation is first.squeeze_excite.activation is F.silu
    assert model.vision_model.encoder.blocks[2].expansion.activation is F.silu
    x = torch.linspace(-20, 20, 1001)
    torch.testing.assert_close(F.silu(x), ACTIVATIONS["swish"](x), rtol=1e-6, atol=1e-9)


def test_presets_differ_in_width_and_depth() -> None:
    tiny, small = PRESETS["tiny"].config(159), PRESETS["small"].config(159)
    assert small.vision.num_blocks > tiny.vision.num_blocks
    assert small.text.num_hidden_layers > tiny.text.num_hidden_layers
    assert small.projection_dim > tiny.projection_dim
