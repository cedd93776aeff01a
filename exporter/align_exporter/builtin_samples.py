"""The built-in images and captions that every export is checked on, and the reference's embeddings of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from align_reference.model import AlignModel, unit_length
from align_runtime.errors import BuildError
from align_runtime.golden import Golden
from align_runtime.images import preprocess
from align_runtime.preprocessing import ImagePreprocessing
from align_runtime.tokenizer import Tokenizer

DATA = Path(__file__).parent / "sample_data"
IMAGE_SUFFIXES = (".jpg", ".png")
REFERENCE_BATCH = 4  # bounds the memory of the full-size reference
ADVICE = (
    "Are they trained? To measure latency without trained weights, export a folder with only config.json and "
    "--random-weights SEED"
)
COLLAPSED_COSINE = 0.99999  # if all pairs of samples are closer than this, a comparison would pass any graph


def images() -> list[Path]:
    """The built-in images: photographs of several sizes, colour and greyscale, JPEG and PNG."""
    return sorted(path for path in DATA.iterdir() if path.suffix in IMAGE_SUFFIXES)


def captions() -> list[str]:
    """The built-in captions: empty, one word, up to more tokens than a model takes; several scripts."""
    return ["", *(DATA / "captions.txt").read_text(encoding="utf-8").splitlines()]


def reference_answers(
    model: AlignModel,
    preprocessing: ImagePreprocessing,
    tokenizer: Tokenizer,
    image_files: Sequence[Path],
    texts: Sequence[str],
) -> Golden:
    """The reference's embeddings of the samples, unit rows; texts are padded to the model's maximal length.

    Raises:
        BuildError: the embeddings are not finite, or all alike (as those of untrained weights).
    """
    pixels = preprocess(image_files, preprocessing)
    input_ids, attention_mask = tokenizer.pad(tokenizer.encode(texts), tokenizer.max_length)
    answers = Golden(
        texts=tuple(texts),
        input_ids=input_ids,
        attention_mask=attention_mask,
        text_embeds=embed_tokens(model, input_ids, attention_mask),
        images=tuple(image_files),
        pixels=pixels,
        image_embeds=embed_pixels(model, preprocessing, pixels),
    )
    _check_distinct(answers.image_embeds, "image")
    _check_distinct(answers.text_embeds, "text")
    return answers


@torch.inference_mode()
def embed_pixels(
    model: AlignModel, preprocessing: ImagePreprocessing, pixels: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """The reference's embeddings of `pixels`, uint8 (n, height, width, 3): float32 (n, dim), unit rows."""
    rows = [
        unit_length(model.get_image_features(torch.from_numpy(preprocessing.normalize(pixels[rows]))))
        for rows in _blocks(len(pixels))
    ]
    return torch.cat(rows).numpy()


@torch.inference_mode()
def embed_tokens(
    model: AlignModel, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The reference's embeddings of texts, tokens and mask int64 (n, sequence): float32 (n, dim), unit rows."""
    rows = [
        unit_length(model.get_text_features(torch.from_numpy(input_ids[rows]), torch.from_numpy(attention_mask[rows])))
        for rows in _blocks(len(input_ids))
    ]
    return torch.cat(rows).numpy()


def pixel_batches(answers: Golden) -> list[NDArray[np.uint8]]:
    """Images for activation ranges: the built-in ones and five extremes, uint8 (1, height, width, 3) each."""
    _, height, width, _ = answers.pixels.shape
    rows, columns = np.indices((height, width))
    extremes = np.zeros((5, height, width, 3), dtype=np.uint8)
    extremes[1] = 255
    extremes[2] = 255 * ((rows + columns) % 2)[..., None]  # the highest frequency
    extremes[3] = (255, 0, 255)
    extremes[4] = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    pixels = np.concatenate([answers.pixels, extremes])
    return one_by_one(pixels)


def text_batches(answers: Golden, vocab_size: int) -> list[dict[str, NDArray[np.int64]]]:
    """Texts for activation ranges: the built-in captions, and rows of random tokens without padding."""
    count, length = answers.input_ids.shape
    tokens = np.random.default_rng(0).integers(0, vocab_size, (count, length))
    inputs = [(answers.input_ids, answers.attention_mask), (tokens, np.ones_like(tokens))]
    return [
        {"input_ids": input_ids[rows], "attention_mask": attention_mask[rows]}
        for input_ids, attention_mask in inputs
        for rows in _blocks(count)
    ]


def one_by_one(pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Images in batches of one: an instrumented graph keeps most activations until their statistics are done."""
    return [pixels[index : index + 1] for index in range(len(pixels))]


def captions_one_by_one(answers: Golden) -> list[dict[str, NDArray[np.int64]]]:
    """The built-in captions in batches of one, without padding, which is no part of a text."""
    lengths = answers.attention_mask.sum(axis=1)
    return [
        {"input_ids": ids[None, :length], "attention_mask": mask[None, :length]}
        for ids, mask, length in zip(answers.input_ids, answers.attention_mask, lengths, strict=True)
    ]


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, REFERENCE_BATCH):
        yield slice(start, start + REFERENCE_BATCH)


def _check_distinct(embeds: NDArray[np.float32], kind: str) -> None:
    if not np.isfinite(embeds).all():
        raise BuildError(f"the reference's {kind} embeddings are not finite; the weights are unusable. {ADVICE}")
    cosines = embeds.astype(np.float64) @ embeds.astype(np.float64).T
    if cosines.min() > COLLAPSED_COSINE:
        raise BuildError(
            f"the reference gives all built-in samples the same {kind} embedding (cosines from {cosines.min():.7f}), "
            f"so a comparison would pass any graph; the weights are unusable. {ADVICE}"
        )
