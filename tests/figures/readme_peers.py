"""The README's tables of INT8 beside other tools, from ``tests/results/int8_peers.json``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from align_runtime.precision import percentage

DECISIONS = {"shapes": "64 drawn classes", "digits": "ten digits", "recall": "recall@1"}
OURS = "align-onnx"


def peer_lines(result: dict[str, Any]) -> Iterator[str]:
    """Paragraphs and tables of every checkpoint that was measured."""
    for name, checkpoint in result["checkpoints"].items():
        draws = list(checkpoint["draws"].values())
        yield (
            f"INT8 of {name} beside other tools, from the same FP32 graphs and {checkpoint['samples']} pictures and "
            "captions: the cosine with the reference on held-out inputs, and decisions in per cent, one tower in "
            "INT8 and the other in FP32, or both. Means over draws of the pictures, and the worst draw in brackets. In "
            f"FP32: {_decided(draws[0]['float'])}. Seeds of the draws: {', '.join(checkpoint['draws'])}."
        )
        yield ""
        yield from _table(draws)
        yield from _both(draws)
        yield ""
        yield from _failures(draws)
    for peer, error in result["missing"].items():
        yield f"Could not be installed: {peer} ({error})."


def _decided(values: Mapping[str, float]) -> str:
    return ", ".join(f"{title} {values[key]:.1f} %" for key, title in DECISIONS.items())


def _table(draws: Sequence[dict[str, Any]]) -> Iterator[str]:
    headings = ["", "draws", "INT8 products", "cosine", "5th percentile", *DECISIONS.values()]
    yield "| " + " | ".join(headings) + " |"
    yield "|" + "---|" * len(headings)
    for tower in ("vision", "text"):
        rows = _by_way(draws, tower)
        for (peer, way), records in sorted(rows.items(), key=lambda row: -_mean(row[1], "mean_cosine")):
            share = min(record["share"] for record in records)
            cells = [
                f"{tower}: **{peer}** `{way}`" if peer == OURS else f"{tower}: {peer}, {way}",
                str(len(records)),
                percentage(round(1e6 * share), 1_000_000),
                *(_with_worst(records, key, 4) for key in ("mean_cosine", "p5_cosine")),
                *(_with_worst(records, key, 1) for key in DECISIONS),
            ]
            yield "| " + " | ".join(cells) + " |"


def _both(draws: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Of each tool the vision graph nearest to the reference, with the text graph nearest to it."""
    best: dict[str, tuple[float, str]] = {}
    for (peer, way), records in _by_way(draws, "vision").items():
        best[peer] = max(best.get(peer, (-1.0, "")), (_mean(records, "mean_cosine"), way))
    for peer, (_, way) in sorted(best.items(), key=lambda entry: -entry[1][0]):
        pairs = [pair for draw in draws for pair in draw["both"] if (pair["peer"], pair["vision"]) == (peer, way)]
        if pairs:
            texts = " or ".join(sorted({pair["text"] for pair in pairs}))
            title = f"both: **{peer}** `{way}`" if peer == OURS else f"both: {peer}, {way}; {texts}"
            decided = (_with_worst(pairs, key, 1) for key in DECISIONS)
            yield "| " + " | ".join([title, str(len(pairs)), "", "", "", *decided]) + " |"


def _by_way(draws: Sequence[dict[str, Any]], tower: str) -> Mapping[tuple[str, str], list[dict[str, Any]]]:
    rows = defaultdict(list)
    for draw in draws:
        for record in draw["graphs"]:
            if record["tower"] == tower and "error" not in record:
                rows[record["peer"], record["way"]].append(record)
    return rows


def _failures(draws: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Each once, with what was said the first time."""
    failed: dict[tuple[str, str, str], str] = {}
    for draw in draws:
        for record in draw["graphs"]:
            if "error" in record:
                failed.setdefault((record["tower"], record["peer"], record["way"]), record["error"])
    for (tower, peer, way), error in failed.items():
        yield f"- failed: {tower}: {peer}, {way}: {error}"
    if failed:
        yield ""


def _mean(records: Sequence[Mapping[str, Any]], key: str) -> float:
    return sum(record[key] for record in records) / len(records)


def _with_worst(records: Sequence[Mapping[str, Any]], key: str, digits: int) -> str:
    mean, worst = _mean(records, key), min(record[key] for record in records)
    return f"{mean:.{digits}f}" + (f" ({worst:.{digits}f})" if len(records) > 1 else "")
