"""Sections on accuracy: FP16 against the reference, align-tiny's own accuracy, and what improves INT8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.sections.layout import Section, cosine, plural, share, table

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
    """What each step of the INT8 export contributes, a table for each checkpoint."""
    lines = [
        "INT8 graphs of trained checkpoints, made without one of the steps of the export ([int8.md](int8.md)), "
        "compared with their FP32 graphs on held-out samples: smallest and mean cosine, the median over draws of the "
        "calibration samples. Everything but INT8 is float32 here. A dash: the graph has no such step.",
    ]
    for name, checkpoint in result["checkpoints"].items():
        if not checkpoint["draws"]:
            raise ValueError(f"{name} has no draws")
        cells: dict[str, dict[str, list[Mapping[str, float]]]] = {}
        for record in (record for draw in checkpoint["draws"].values() for record in draw):
            graph = f"{record['tower']}, {DEVICES[record['device']]}"
            cells.setdefault(record["without"], {}).setdefault(graph, []).append(record)
        graphs = list(dict.fromkeys(graph for row in cells.values() for graph in row))
        rows = [(step, *(_smallest_and_mean(row.get(graph, ())) for graph in graphs)) for step, row in cells.items()]
        rows.sort(key=lambda row: row[0] == "all of these")
        count = f"{plural(len(checkpoint['draws']), 'draw')}, {checkpoint['samples']} calibration samples of each kind"
        lines += ["", f"{name}, {count}:", "", *table(("left out", *graphs), rows)]
    return lines


DEVICES = {"cpu": "for CPUs", "cuda": "for TensorRT"}


def _smallest_and_mean(draws: Sequence[Mapping[str, float]]) -> str:
    if not draws:
        return "–"
    return " / ".join(f"{median(draw[key] for draw in draws):.4f}" for key in ("min_cosine", "mean_cosine"))


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
