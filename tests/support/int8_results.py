"""Small made-up results of INT8 graphs: other tools, trained weights, the ablation; figures as in benchmark_results."""

from __future__ import annotations

from typing import Any


def peer_graph(peer: str, tower: str, cosine: float, **changes: Any) -> dict[str, Any]:
    """The record of one graph of a tool."""
    values = {"peer": peer, "tower": tower, "recipe": "recipe", "share": 1.0, "mean_cosine": cosine, "p5_cosine": 0.9}
    return values | {"shapes": 97.0, "digits": 92.0, "recall": 85.0} | changes


def int8_peers() -> dict[str, Any]:
    """Two draws of two tools and ours, with a recipe that failed and a tool that could not be installed."""
    accuracies = {"shapes": 98.0, "digits": 92.0, "recall": 85.0}
    failed = {"peer": "gone", "tower": "vision", "recipe": "recipe", "error": "ValueError: no"}
    draws = {
        str(seed): {
            "float": accuracies,
            "longest_text": 18,
            "graphs": [
                peer_graph("align-onnx", "vision", 0.97),
                peer_graph("align-onnx for TensorRT", "vision", 0.96),
                peer_graph("other", "vision", cosine),
                peer_graph("other", "vision", 0.5, recipe="a worse recipe"),
                failed,
            ],
            "both": [
                {"peer": "align-onnx", "vision": "recipe", "text": "recipe", **accuracies, "shapes": 97.0 + seed},
                {"peer": "other", "vision": "recipe", "text": "words", **accuracies, "recall": 80.0 + seed},
            ],
        }
        for seed, cosine in enumerate((0.99, 0.97))
    }
    return {
        "checkpoints": {"align-tiny": {"samples": 128, "draws": draws}},
        "missing": {"lost": "ERROR: not found"},
    }


def trained() -> dict[str, Any]:
    """Two draws of a checkpoint: ours, another tool with two recipes, and one that failed."""
    keys = ("share", "min_cosine", "mean_cosine", "min_centred", "mean_centred", "agreement")

    def graph(peer: str, recipe: str, *values: float) -> dict[str, Any]:
        return {"peer": peer, "tower": "text", "recipe": recipe, **dict(zip(keys, values, strict=True))}

    draws = {
        str(seed): {
            "graphs": [
                graph("align-onnx", "--int8", 0.97, 0.99 - seed / 100, 0.995, 0.96, 0.98, 0.9),
                graph("other", "better", 1, 0.97, 0.985, 0.91, 0.95, 0.8),
                graph("other", "worse", 1, 0.99, 0.984, 0.99, 0.99, 1.0),
                {"peer": "other", "tower": "vision", "recipe": "better", "error": "ValueError: no"},
            ]
        }
        for seed in range(2)
    }
    built_in = {"lite9": {"graphs": [graph("align-onnx", "--int8", 0.96, 0.91, 0.92, 0.81, 0.82, 0.5)]}}
    checkpoints = {"lite9": {"samples": 200, "draws": draws}, "lite10": {"samples": 200, "draws": draws}}
    target = {
        "lite9": {"min_cosine": 0.999, "graphs": [graph("align-onnx", "--int8", 0.5, 0.98, 0.999, 0.97, 0.98, 1)]}
    }
    return {"checkpoints": checkpoints, "built_in": built_in, "targets": target, "missing": {}}


def ablation() -> dict[str, Any]:
    """Three draws: a step of images, and texts without one."""
    return {
        "checkpoints": {
            "align-tiny": {
                "samples": 128,
                "draws": {
                    str(seed): [
                        {
                            "tower": tower,
                            "device": "cpu",
                            "without": step,
                            "min_cosine": 0.9 + seed / 100,
                            "mean_cosine": 0.95,
                        }
                        for tower, step in (("vision", "a step"), ("vision", "all of these"), ("text", "nothing"))
                    ]
                    for seed in (0, 1, 2)
                },
            }
        },
    }
