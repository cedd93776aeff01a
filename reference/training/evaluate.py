"""Measures a trained folder on held-out data.

    PYTHONPATH=reference:runtime python -m training.evaluate reference/align-tiny --json evaluation.json

The images are drawn from a seed that training does not use, and the handwriting comes from the test part of the digits.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from align_reference.model import AlignModel, unit_length
from training.captions import LABEL_TEMPLATE, full_caption, label
from training.folder import encode, read_folder
from training.pools import Pool, batches, held_out_digits, held_out_shapes
from training.scenes import COLOURS, DIGITS, SHAPES

EVALUATION_SEED = 90_000_001  # training seeds are small numbers
PER_CLASS = 10
RENDERINGS = 4  # of each test digit: with a single one, top-1 varies by 2 points between seeds
BATCH_SIZE = 128


@dataclass(frozen=True)
class ZeroShot:
    """Zero-shot classification with one template.

    Attributes:
        top1: top-1 accuracy.
        labels: the candidate labels.
        confusion: number of images for each pair of labels, (true, predicted).
    """

    top1: float
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Evaluation:
    """Results of `evaluate`. The mean cosines are over pairs of different images or texts."""

    seed: int
    shapes: ZeroShot
    digits: ZeroShot
    retrieval_images: int
    text_to_image_recall_at_1: float
    image_to_text_recall_at_1: float
    temperature: float
    mean_image_cosine: float
    mean_text_cosine: float
    matching_cosine: float


@torch.inference_mode()
def embed_images(model: AlignModel, pool: Pool) -> Tensor:
    """Unit rows, float (images, dim)."""
    rows = [unit_length(model.get_image_features(values)) for values in batches(pool.pixels, BATCH_SIZE)]
    return torch.cat(rows)


@torch.inference_mode()
def embed_texts(model: AlignModel, tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """Unit rows, float (texts, dim)."""
    return unit_length(model.get_text_features(*encode(tokenizer, texts)))


def zero_shot(image_embeds: Tensor, label_embeds: Tensor, truth: Tensor, labels: Sequence[str]) -> ZeroShot:
    """Compares the nearest label of each image with `truth`, the label indices, int64 (images,)."""
    answers = (image_embeds @ label_embeds.T).argmax(dim=1)
    confusion = torch.zeros(len(labels), len(labels), dtype=torch.int64)
    confusion.index_put_((truth, answers), torch.ones_like(truth), accumulate=True)
    return ZeroShot(
        top1=(answers == truth).double().mean().item(),
        labels=tuple(labels),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def evaluate(folder: Path, seed: int = EVALUATION_SEED) -> Evaluation:
    """All measurements of the model in `folder`, on images drawn from `seed`."""
    model, tokenizer, image = read_folder(folder)
    shapes, digits = held_out_shapes(seed, PER_CLASS, image), held_out_digits(seed, RENDERINGS, image)
    shape_embeds, digit_embeds = embed_images(model, shapes), embed_images(model, digits)

    shape_labels = [label(shape, colour) for colour in COLOURS for shape in SHAPES]
    digit_labels = [label(digit) for digit in DIGITS]
    label_embeds = [
        embed_texts(model, tokenizer, [LABEL_TEMPLATE.format(name) for name in names])
        for names in (shape_labels, digit_labels)
    ]
    shape_truth = torch.arange(len(shape_labels)).repeat_interleave(PER_CLASS)
    digit_truth = torch.tensor([DIGITS.index(scene.subject) for scene in digits.scenes])

    # Retrieval uses one rendering of each digit, and the first of several equal scenes, whose captions are the same.
    once = len(digits.scenes) // RENDERINGS
    captions = [full_caption(scene) for scene in (*shapes.scenes, *digits.scenes[:once])]
    first = [index for index, caption in enumerate(captions) if caption not in captions[:index]]
    images = torch.cat([shape_embeds, digit_embeds[:once]])[first]
    texts = embed_texts(model, tokenizer, [captions[index] for index in first])
    similarity = texts @ images.T
    pairs = torch.arange(len(first))
    return Evaluation(
        seed=seed,
        shapes=zero_shot(shape_embeds, label_embeds[0], shape_truth, shape_labels),
        digits=zero_shot(digit_embeds, label_embeds[1], digit_truth, digit_labels),
        retrieval_images=len(first),
        text_to_image_recall_at_1=(similarity.argmax(dim=1) == pairs).double().mean().item(),
        image_to_text_recall_at_1=(similarity.argmax(dim=0) == pairs).double().mean().item(),
        temperature=model.temperature.item(),
        mean_image_cosine=_mean_between(images),
        mean_text_cosine=_mean_between(texts),
        matching_cosine=similarity.diagonal().mean().item(),
    )


def _mean_between(embeds: Tensor) -> float:
    cosines = embeds @ embeds.T
    count = len(embeds)
    return ((cosines.sum() - cosines.trace()) / (count * (count - 1))).item()


def summary(evaluation: Evaluation) -> str:
    """The results as text, one per line."""
    return "\n".join(
        (
            f"zero-shot top-1, {len(evaluation.shapes.labels)} drawn classes: {evaluation.shapes.top1:.4f}",
            f"zero-shot top-1, {len(evaluation.digits.labels)} digits: {evaluation.digits.top1:.4f}",
            f"recall@1 over {evaluation.retrieval_images} images, text to image: "
            f"{evaluation.text_to_image_recall_at_1:.4f}",
            f"recall@1, image to text: {evaluation.image_to_text_recall_at_1:.4f}",
            f"temperature: {evaluation.temperature:.4f}",
            f"mean cosine between images: {evaluation.mean_image_cosine:.4f}",
            f"mean cosine between texts: {evaluation.mean_text_cosine:.4f}",
            f"mean cosine of an image and its caption: {evaluation.matching_cosine:.4f}",
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures a trained folder on held-out data.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=EVALUATION_SEED, help="of the held-out images")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write all results to this JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    evaluation = evaluate(arguments.folder, arguments.seed)
    print(summary(evaluation))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(asdict(evaluation), separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
