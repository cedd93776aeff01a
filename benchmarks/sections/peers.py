"""Section: INT8 accuracy beside other quantization tools."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.sections.layout import Section, median_and_worst, share, table

ACCURACIES = {"shapes": "top-1, 64 classes", "digits": "top-1, 10 digits", "recall": "recall@1"}
HEADINGS = ("graphs", "draws", "MACs in INT8", "cosine", "5th percentile", *ACCURACIES.values())
OURS = "align-onnx"

Record = Mapping[str, Any]


def peer_lines(result: Mapping[str, Any]) -> list[str]:
    """A table for each checkpoint, then what failed."""
    lines = [
        "Every tool quantizes the same FP32 graphs with the same calibration images and captions. Cosine: with the "
        "FP32 reference on held-out inputs. Zero-shot top-1 and text → image recall@1 in per cent, with one tower in "
        "INT8 and the other in FP32, or with both in INT8. Medians over draws of the calibration data, the worst draw "
        "in brackets. Of each tool, the recipe with the best median cosine; all recipes and errors are in the result "
        "file.",
    ]
    for name, checkpoint in result["checkpoints"].items():
        draws = list(checkpoint["draws"].values())
        lines += [
            "",
            f"{name}, {checkpoint['samples']} calibration images and captions, seeds of the draws "
            f"{', '.join(sorted(checkpoint['draws'], key=int))}. MACs are counted on one image and on the longest "
            f"held-out text, {draws[0]['longest_text']} tokens. FP32: {_accuracies(draws[0]['float'])}.",
            "",
            *table(HEADINGS, list(_rows(draws))),
            *_failures(draws),
        ]
    for peer, error in result["missing"].items():
        lines += ["", f"Could not be installed: {peer} ({error})."]
    return lines


def _accuracies(values: Mapping[str, float]) -> str:
    return "; ".join(f"{title} {values[key]:.1f} %" for key, title in ACCURACIES.items())


def _rows(draws: Sequence[Record]) -> Iterator[list[str]]:
    """The best recipe of each tool for each tower, then each tool's vision recipe with its text recipe."""
    for tower in ("vision", "text"):
        for peer, recipe, records in best_recipes(draws, tower):
            yield [
                _title(tower, peer, recipe),
                str(len(records)),
                share(min(record["share"] for record in records)),
                *(median_and_worst(_values(records, key), 4) for key in ("mean_cosine", "p5_cosine")),
                *(median_and_worst(_values(records, key), 1) for key in ACCURACIES),
            ]
    for peer, recipe, _ in best_recipes(draws, "vision"):
        pairs = pairs_of(draws, peer, recipe)
        if pairs:
            recipes = " or ".join(sorted({f"{recipe}; {pair['text']}" for pair in pairs}))
            accuracies = (median_and_worst(_values(pairs, key), 1) for key in ACCURACIES)
            yield [_title("both", peer, recipes), str(len(pairs)), "", "", "", *accuracies]


def pairs_of(draws: Sequence[Record], peer: str, recipe: str) -> list[Record]:
    """Accuracies of both towers in INT8, the vision tower by `recipe`, in every draw."""
    return [pair for draw in draws for pair in draw["both"] if (pair["peer"], pair["vision"]) == (peer, recipe)]


def _title(tower: str, peer: str, recipe: str) -> str:
    return f"{tower}: **{peer}**" if peer.startswith(OURS) else f"{tower}: {peer}, {recipe}"


def best_recipes(draws: Sequence[Record], tower: str) -> list[tuple[str, str, list[Record]]]:
    """Each tool with its best recipe and the records of it, the tool with the best median cosine first."""
    ranked = sorted(_by_recipe(draws, tower).items(), key=lambda row: -median(_values(row[1], "mean_cosine")))
    best: dict[str, tuple[str, str, list[Record]]] = {}
    for (peer, recipe), records in ranked:
        best.setdefault(peer, (peer, recipe, records))
    return list(best.values())


def _by_recipe(draws: Sequence[Record], tower: str) -> Mapping[tuple[str, str], list[Record]]:
    rows = defaultdict(list)
    for draw in draws:
        for record in draw["graphs"]:
            if record["tower"] == tower and "error" not in record:
                rows[record["peer"], record["recipe"]].append(record)
    return rows


def _values(records: Sequence[Record], key: str) -> list[float]:
    return [record[key] for record in records]


def _failures(draws: Sequence[Record]) -> list[str]:
    names = [
        f"{record['tower']}: {record['peer']}, {record['recipe']}"
        for draw in draws
        for record in draw["graphs"]
        if "error" in record
    ]
    return ["", f"Failed in at least one draw: {'; '.join(dict.fromkeys(names))}."] if names else []


SECTION = Section("INT8 accuracy beside other tools", "int8_peers", peer_lines)
