"""The tables of INT8 beside other tools: medians, worst draws, failures and missing tools."""

from __future__ import annotations

from typing import Any

from benchmarks.readme_peers import peer_lines


def graph(peer: str, tower: str, cosine: float, **changes: Any) -> dict[str, Any]:
    values = {"peer": peer, "tower": tower, "way": "way", "share": 1.0, "mean_cosine": cosine, "p5_cosine": 0.9}
    return values | {"shapes": 98.0, "digits": 92.0, "recall": 85.0} | changes


def result() -> dict[str, Any]:
    decided = {"shapes": 98.0, "digits": 92.0, "recall": 85.0}
    broken = {"peer": "gone", "tower": "vision", "way": "way", "error": "ValueError: no"}
    worse = graph("other", "vision", 0.5, way="another")
    draws = {
        str(seed): {
            "float": decided,
            "longest_text": 18,
            "graphs": [
                graph("align-onnx", "vision", 0.97),
                graph("align-onnx for it", "vision", 0.96),
                graph("other", "vision", cosine),
                worse,
                broken,
            ],
            "both": [{"peer": "other", "vision": "way", "text": "words", **decided, "recall": 80.0 + seed}],
        }
        for seed, cosine in enumerate((0.99, 0.97))
    }
    return {"checkpoints": {"tiny": {"samples": 128, "draws": draws}}, "missing": {"lost": "ERROR: not found"}}


def test_rows_are_the_best_ways_their_medians_and_worst_draws() -> None:
    rows = [line for line in peer_lines(result()) if line.startswith(("| vision", "| both"))]
    assert rows == [
        "| vision: other, way | 2 | 100 % | 0.9800 (0.9700) | 0.9000 (0.9000) "
        "| 98.0 (98.0) | 92.0 (92.0) | 85.0 (85.0) |",
        "| vision: **align-onnx** | 2 | 100 % | 0.9700 (0.9700) | 0.9000 (0.9000) "
        "| 98.0 (98.0) | 92.0 (92.0) | 85.0 (85.0) |",
        "| vision: **align-onnx for it** | 2 | 100 % | 0.9600 (0.9600) | 0.9000 (0.9000) "
        "| 98.0 (98.0) | 92.0 (92.0) | 85.0 (85.0) |",
        "| both: other, way; words | 2 |  |  |  | 98.0 (98.0) | 92.0 (92.0) | 80.5 (80.0) |",
    ]


def test_what_failed_and_what_is_missing_is_said_once() -> None:
    text = "\n".join(peer_lines(result()))
    assert text.count("Failed at least once: vision: gone, way.") == 1
    assert "Could not be installed: lost (ERROR: not found)" in text
