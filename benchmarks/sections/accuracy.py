"""Sections on accuracy: FP16 against the reference, align-tiny's own accuracy, and what improves INT8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.sections.layout import Section, cosine, median_and_worst, plural, share, table

FP16_RECIPES = {
    "nearest": "weights rounded to nearest; norms and softmax in FP32",
    "means": "the same, and weights rounded so that every channel keeps its mean",
    "gates": "the first, and squeeze-excite in FP32 where no residual follows",
    "both": "both together, as `--fp16` does",
}


def fp16_lines(result: Mapping[str, Any]) -> list[str]:
    """How near each FP16 recipe comes to the reference."""
    recipes = {entry["recipe"]: entry for entry in result["recipes"]}
    rows = [
        (title, *(cosine(recipes[name][images]["min_centred_cosine"]) for images in ("samples", "others")))
        for name, title in FP16_RECIPES.items()
    ]
    return [
        "The FP16 vision graph in the published sizes, emulated on a CPU with every value rounded to FP16 as it is "
        "stored: the smallest mean-centred cosine with the FP32 reference over the images. Keeping the means of "
        "channels gains most.",
        "",
        *table(("recipe", "images that the export measured on", "crops of other photographs"), rows),
    ]


def ablation_lines(result: Mapping[str, Any]) -> list[str]:
    """What each INT8 recipe contributes, a table for each checkpoint."""
    lines = [
        "INT8 vision graphs for CPUs of trained checkpoints, compared with their FP32 graphs on held-out images. "
        "Error: squared distance of the embeddings, a 2 % trimmed mean. Medians over draws of the calibration images, "
        "the worst draw in brackets. Bias correction and equalized residual streams were tried and are not part of the "
        "export. INT8 weights alone cost almost nothing, so a better rounding of weights would not help.",
    ]
    for name, checkpoint in result["checkpoints"].items():
        rows = [
            (
                recipe,
                median_and_worst([draw["error"] for draw in draws], 4, max),
                median_and_worst([draw["p5_cosine"] for draw in draws], 4),
            )
            for recipe, draws in checkpoint["recipes"].items()
        ]
        images = (
            f"{checkpoint['calibration_images']} calibration images, {checkpoint['held_out_images']} held-out images"
        )
        lines += ["", f"{name}, {plural(len(checkpoint['seeds']), 'draw')}, {images}:", ""]
        lines += table(("recipe", "error", "5th percentile of the cosine"), rows)
    return lines


def zero_shot_lines(result: Mapping[str, Any]) -> list[str]:
    """What align-tiny answers in FP32."""
    shapes, digits = result["shapes"], result["digits"]
    rows = [
        (f"zero-shot top-1, {len(shapes['labels'])} classes of drawn shapes", share(shapes["top1"])),
        (f"zero-shot top-1, {len(digits['labels'])} handwritten digits", share(digits["top1"])),
        (
            f"text → image recall@1 among {result['retrieval_images']} images",
            share(result["text_to_image_recall_at_1"]),
        ),
    ]
    return [
        "The trained align-tiny in FP32 on images that it never saw in training: good enough that a loss by FP16 or "
        "INT8 shows.",
        "",
        *table(("task", "accuracy"), rows),
    ]


SECTIONS = (
    Section("FP16 fidelity", "fp16", fp16_lines),
    Section("Accuracy of align-tiny", "evaluation", zero_shot_lines),
    Section("INT8 ablation", "ablation", ablation_lines),
)
