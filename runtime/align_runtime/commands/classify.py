"""``align-classify BUNDLE IMAGE… --labels …``: zero-shot classification of images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_runtime.console import (
    CommandParser,
    add_device_options,
    add_output_options,
    chosen_device,
    positive_int,
    run,
    say,
    say_json,
    table,
)
from align_runtime.errors import ConfigurationError, InputError
from align_runtime.model import load
from align_runtime.similarity import DEFAULT_TEMPLATE, captions


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 2 a wrong call or an input that cannot be read."""
    parser = CommandParser(
        prog="align-classify",
        description="Zero-shot classification: the probability of each label for each image.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder that align-export wrote")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files")
    labels = parser.add_mutually_exclusive_group(required=True)
    labels.add_argument("--labels", nargs="+", metavar="LABEL", help="the labels to choose from")
    labels.add_argument("--labels-file", type=Path, metavar="FILE", help="a text file with one label per line")
    parser.add_argument(
        "--template",
        default=DEFAULT_TEMPLATE,
        help=f"text made of a label, which takes the place of {{}} (default: {DEFAULT_TEMPLATE!r})",
    )
    parser.add_argument("--top", type=positive_int, default=3, metavar="N", help="labels shown per image (default: 3)")
    parser.add_argument(
        "--precision", default="fp32", help="precision of the graphs, one that the bundle holds (default: fp32)"
    )
    add_device_options(parser)
    add_output_options(parser)
    return run(parser, arguments, _classify)


def _classify(options: argparse.Namespace) -> int:
    device = chosen_device(options)
    labels = options.labels or _read_labels(options.labels_file)
    captions(labels, options.template)  # refuses what cannot be used before the model is loaded
    for index, image in enumerate(options.images):
        if not Path(image).is_file():
            raise InputError(f"{image} is not a file", index)
    with load(options.bundle, precision=options.precision, device=device, threads=options.threads) as model:
        probabilities = model.classify(options.images, labels, template=options.template)
    if options.json:
        say_json(_as_json(options.images, labels, probabilities))
    else:
        say(_as_table(options.images, labels, probabilities, options.top))
    return 0


def _read_labels(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # Windows editors begin with a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the labels in {path} cannot be read: {error}") from None
    labels = [line.strip() for line in lines if line.strip()]
    if not labels:
        raise ConfigurationError(f"{path} holds no labels; expected one per line")
    return labels


def _as_json(images: list[str], labels: list[str], probabilities: NDArray[np.float32]) -> dict[str, Any]:
    return {
        "labels": labels,
        "images": [
            {"image": image, "best": labels[int(row.argmax())], "probabilities": [float(value) for value in row]}
            for image, row in zip(images, probabilities, strict=True)
        ],
    }


def _as_table(images: list[str], labels: list[str], probabilities: NDArray[np.float32], top: int) -> list[str]:
    rows = []
    for image, row in zip(images, probabilities, strict=True):
        for rank, choice in enumerate(np.argsort(-row, kind="stable")[:top]):
            rows.append([image if rank == 0 else "", labels[choice], f"{row[choice]:.1%}"])
    return table(["image", "label", "probability"], rows, right=(2,))
