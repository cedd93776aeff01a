"""The README's tables of INT8 beside other tools, from ``benchmarks/results/int8_peers.json``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from align_runtime.precision import percentage
from benchmarks.markdown import table

DECISIONS = {"shapes": "64 drawn classes", "digits": "ten digits", "recall": "recall@1"}
HEADINGS = ("", "draws", "INT8 products", "cosine", "5th percentile", *DECISIONS.values())
OURS = "align-onnx"


def peer_lines(result: dict[str, Any]) -> Iterator[str]:
    """Paragraphs and tables of every checkpoint that was measured."""
    for name, checkpoint in result["checkpoints"].items():
        draws = list(checkpoint["draws"].values())
        yield (
            f"INT8 of {name} beside other tools, from the same FP32 graphs and {checkpoint['samples']} images and "
            "captions: the cosine with the reference on held-out inputs, and decisions in per cent, one tower in "
            "INT8 and the other in FP32, or both. Medians over draws of the images, and the worst draw in brackets. "
            "Of each tool the way that comes nearest to the reference in the median; all ways and errors are in "
            "[the results](benchmarks/results/int8_peers.json). Products are counted on a image and on the longest "
            f"held-out text, {draws[0]['longest_text']} tokens. Seeds of the draws: {', '.join(checkpoint['draws'])}. "
            f"In FP32: {_decided(draws[0]['float'])}."
        )
        yield ""
        yield from table(HEADINGS, list(_rows(draws)))
        yield ""
        yield from _failures(draws)
    for peer, error in result["missing"].items():
        yield f"Could not be installed: {peer} ({error})."


def _decided(values: Mapping[str, float]) -> str:
    return ", ".join(f"{title} {values[key]:.1f} %" for key, title in DECISIONS.items())


def _rows(draws: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    """Of each tool the way that is nearest to the reference, of each tower and of both."""
    for tower in ("vision", "text"):
        for peer, way, records in _best(draws, tower):
            share = min(record["share"] for record in records)
            yield [
                _title(tower, peer, way),
                str(len(records)),
                percentage(round(1e6 * share), 1_000_000),
                *(_with_worst(records, key, 4) for key in ("mean_cosine", "p5_cosine")),
                *(_with_worst(records, key, 1) for key in DECISIONS),
            ]
    for peer, way, _ in _best(draws, "vision"):
        pairs = [pair for draw in draws for pair in draw["both"] if (pair["peer"], pair["vision"]) == (peer, way)]
        if pairs:
            ways = " or ".join(sorted({f"{way}; {pair['text']}" for pair in pairs}))
            decided = (_with_worst(pairs, key, 1) for key in DECISIONS)
            yield [_title("both", peer, ways), str(len(pairs)), "", "", "", *decided]


def _title(tower: str, peer: str, way: str) -> str:
    return f"{tower}: **{peer}**" if peer.startswith(OURS) else f"{tower}: {peer}, {way}"


def _best(draws: Sequence[dict[str, Any]], tower: str) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Tools, their best ways and what was measured of them, the nearest to the reference first."""
    ranked = sorted(_by_way(draws, tower).items(), key=lambda row: -_median(row[1], "mean_cosine"))
    best: dict[str, tuple[str, str, list[dict[str, Any]]]] = {}
    for (peer, way), records in ranked:
        best.setdefault(peer, (peer, way, records))
    return list(best.values())


def _by_way(draws: Sequence[dict[str, Any]], tower: str) -> Mapping[tuple[str, str], list[dict[str, Any]]]:
    rows = defaultdict(list)
    for draw in draws:
        for record in draw["graphs"]:
            if record["tower"] == tower and "error" not in record:
                rows[record["peer"], record["way"]].append(record)
    return rows


def _failures(draws: Sequence[dict[str, Any]]) -> Iterator[str]:
    names = [
        f"{record['tower']}: {record['peer']}, {record['way']}"
        for draw in draws
        for record in draw["graphs"]
        if "error" in record
    ]
    if names:
        yield f"Failed at least once: {'; '.join(dict.fromkeys(names))}."
        yield ""


def _median(records: Sequence[Mapping[str, Any]], key: str) -> float:
    """Not the mean: one draw that breaks a way would decide over all the others."""
    return median(record[key] for record in records)


def _with_worst(records: Sequence[Mapping[str, Any]], key: str, digits: int) -> str:
    typical, worst = _median(records, key), min(record[key] for record in records)
    return f"{typical:.{digits}f}" + (f" ({worst:.{digits}f})" if len(records) > 1 else "")
