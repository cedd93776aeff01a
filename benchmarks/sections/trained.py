"""Section: INT8 on weights that the world trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.sections.layout import Section, median_and_worst, plural, share, table
from benchmarks.sections.peers import OURS, best_recipes

COSINES = {
    "min_cosine": "smallest cosine",
    "mean_cosine": "mean",
    "min_centred": "smallest, mean-centred",
    "mean_centred": "mean, mean-centred",
}
HEADINGS = ("graph", "MACs in INT8", *COSINES.values(), "same caption found")

# What our graphs are to reach in every draw, by tower; "share" is that of the MACs in INT8.
GOALS = {
    "vision": {"min_cosine": 0.985, "share": 0.95},
    "text": {"min_cosine": 0.995, "min_centred": 0.98, "share": 0.95},
}

Record = Mapping[str, Any]


def trained_lines(result: Mapping[str, Any]) -> list[str]:
    """A table for each checkpoint."""
    lines = [
        "EfficientNet-Lite with its ImageNet weights and MiniLM-L6, in ALIGN's layout (see "
        "benchmarks/trained_checkpoints.py); lite1-swish is lite1 with ALIGN's own activation in place of ReLU6, "
        "distilled from it. Cosine: with the FP32 graph, on crops of photographs of which calibration "
        "has seen none, and on captions, odd ones among them. Mean-centred: with the mean of the FP32 embeddings "
        "subtracted from both. Last column: images that find the same one of the captions, the other tower in FP32. "
        "Of several draws of the calibration data the median, the worst in brackets. Of each other tool, the recipe "
        "with the best mean cosine; those that failed or took too long are in the raw values alone, and slow ones were "
        "not tried. The graphs for TensorRT run on the CPU here. Rows of other tools, targets and built-in samples "
        "stay until they are measured anew: they may be of an earlier day and another processor than named below. "
        "With a target, and with built-in samples, one draw.",
    ]
    for name, checkpoint in result["checkpoints"].items():
        draws = list(checkpoint["draws"].values())
        if not draws:
            raise ValueError(f"{name} has no draws")
        lines += [
            "",
            f"{name}, {checkpoint['samples']} calibration images and captions, {plural(len(draws), 'draw')}:",
            "",
            *table(HEADINGS, [*_rows(draws), *_others(result, name)]),
            "",
            _verdict(checkpoint["draws"]),
        ]
    return lines


def _verdict(draws: Mapping[str, Record]) -> str:
    """Whether our graphs reach the goals, and which do not."""
    goals = "; ".join(
        f"{tower}: " + ", ".join(f"{_title(key)} ≥ {least:g}" for key, least in of_tower.items())
        for tower, of_tower in GOALS.items()
    )
    missed = [
        f"{record['tower']} of {record['peer']} in draw {seed}: {_title(key)} {record[key]:.4f}"
        for seed, draw in draws.items()
        for record in draw["graphs"]
        if record["peer"].startswith(OURS)
        for key, least in GOALS[record["tower"]].items()
        if record[key] < least
    ]
    return f"Goals ({goals}): {'missed by ' + '; '.join(missed) if missed else 'reached by our graphs in every draw'}."


def _title(key: str) -> str:
    return COSINES.get(key, "share of the MACs in INT8")


def _others(result: Mapping[str, Any], checkpoint: str) -> Iterator[list[str]]:
    """Our graphs with a target, and those calibrated on what an export takes that is given no calibration samples."""
    target = result.get("targets", {}).get(checkpoint, {"graphs": ()})
    built_in = result.get("built_in", {}).get(checkpoint, {"graphs": ()})
    for draw, how in ((target, f"--int8-min-cosine {target.get('min_cosine')}"), (built_in, "built-in samples")):
        for record in draw["graphs"]:
            figures = [f"{record[key]:.4f}" for key in COSINES]
            title = f"{record['tower']}: {record['peer']}, {how}"
            yield [title, share(record["share"]), *figures, f"{100 * record['agreement']:.1f} %"]


def _rows(draws: Sequence[Record]) -> Iterator[list[str]]:
    for tower in ("vision", "text"):
        for peer, recipe, records in best_recipes(draws, tower):
            title = f"{tower}: **{peer}**" if peer.startswith(OURS) else f"{tower}: {peer}, {recipe}"
            fewer = "" if len(records) == len(draws) else f" ({plural(len(records), 'draw')})"
            yield [
                f"{title}{fewer}",
                share(min(record["share"] for record in records)),
                *(median_and_worst([record[key] for record in records], 4) for key in COSINES),
                median_and_worst([100 * record["agreement"] for record in records], 1) + " %",
            ]


SECTION = Section("INT8 on weights trained on photographs", "trained", trained_lines)
