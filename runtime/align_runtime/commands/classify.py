"""``align-classify BUNDLE IMAGE… --labels …``: zero-shot classification of images."""

from __future__ import annotations

import argparse
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_runtime.commands.bundle_arguments import add_bundle_arguments
from align_runtime.commands.image_arguments import add_image_options, chosen_images
from align_runtime.commands.settings_arguments import add_settings_options, chosen_settings
from align_runtime.console import (
    CommandParser,
    add_output_options,
    error_json,
    positive_int,
    run,
    say,
    say_json,
    table,
)
from align_runtime.errors import ConfigurationError, InputError
from align_runtime.hub_bundle import find_bundle
from align_runtime.model import load
from align_runtime.regular_files import read_regular
from align_runtime.similarity import DEFAULT_TEMPLATE, captions, softmax
from align_runtime.standard_streams import complain
from align_runtime.user_path import expanded, user_path

Result = tuple[int, NDArray[np.float32] | InputError]  # position of the image; its probabilities, or why there are none

MAX_LABEL_BYTES = 8 << 20  # of a file of labels


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 2 a wrong call or an image that cannot be used.

    The other images are classified all the same.
    """
    parser = CommandParser(
        prog="align-classify",
        description="Zero-shot classification: the probability of each label for each image. An image that cannot be "
        "used is reported, the others are classified all the same, and the exit code is 2.",
    )
    add_bundle_arguments(parser)
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=expanded, help="image files")
    labels = parser.add_mutually_exclusive_group(required=True)
    labels.add_argument("--labels", nargs="+", metavar="LABEL", help="the labels to choose from")
    labels.add_argument("--labels-file", type=user_path, metavar="FILE", help="a text file with one label per line")
    parser.add_argument(
        "--template",
        default=DEFAULT_TEMPLATE,
        help=f"text made of a label, which takes the place of {{}} (default: {DEFAULT_TEMPLATE!r})",
    )
    parser.add_argument("--top", type=positive_int, default=3, metavar="N", help="labels shown per image (default: 3)")
    add_image_options(parser)
    add_settings_options(parser)
    add_output_options(parser)
    return run(parser, arguments, _classify)


def _classify(options: argparse.Namespace) -> int:
    settings = chosen_settings(options)
    labels = options.labels or _read_labels(options.labels_file)
    captions(labels, options.template)  # refuses what cannot be used before the model is loaded
    images = chosen_images(options)
    bundle = find_bundle(options.bundle, options.revision, quiet=options.quiet or options.json)
    with load(
        bundle.folder,
        **settings,
        check_hashes=bundle.downloaded,
        manifest_sha256=options.manifest_sha256,
        alpha=images.alpha,
        formats=images.formats,
        max_pixels=images.max_pixels,
    ) as model:
        texts = model.embed_texts(captions(labels, options.template))
        rows = model.embed_images(options.images, on_error="skip")
        probabilities = softmax(model.logits(rows.embeddings, texts))
    results: list[Result] = [*zip(rows.indices.tolist(), probabilities, strict=True)]
    results += [(error.index or 0, error) for error in rows.errors]
    results.sort(key=itemgetter(0))
    if options.json:
        say_json(_as_json(options.images, labels, results))
    else:
        say(_as_table(options.images, labels, results, options.top))
    for error in rows.errors:
        complain(f"align-classify: error: {error}")
    return InputError.exit_code if rows.errors else 0


def _read_labels(path: Path) -> list[str]:
    try:
        content = read_regular(path, MAX_LABEL_BYTES, ConfigurationError)
        lines = content.decode("utf-8-sig").splitlines()  # Windows editors begin with a byte order mark
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"the labels in {path} cannot be read: {error}") from None
    labels = [line.strip() for line in lines if line.strip()]
    if not labels:
        raise ConfigurationError(f"{path} holds no labels; expected one per line")
    return labels


def _as_json(images: list[str], labels: list[str], results: list[Result]) -> dict[str, Any]:
    return {"labels": labels, "images": [{"image": images[index], **_entry(found, labels)} for index, found in results]}


def _entry(found: NDArray[np.float32] | InputError, labels: list[str]) -> dict[str, Any]:
    if isinstance(found, InputError):
        return {"error": error_json(found)}
    return {"best": labels[int(found.argmax())], "probabilities": [float(value) for value in found]}


def _as_table(images: list[str], labels: list[str], results: list[Result], top: int) -> list[str]:
    rows = []
    for index, found in results:
        if isinstance(found, InputError):
            rows.append([images[index], "(error)", ""])
            continue
        for rank, choice in enumerate(np.argsort(-found, kind="stable")[:top]):
            rows.append([images[index] if rank == 0 else "", labels[choice], f"{found[choice]:.1%}"])
    return table(["image", "label", "probability"], rows, right=(2,))
