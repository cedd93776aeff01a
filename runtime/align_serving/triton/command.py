"""``align-triton BUNDLE REPOSITORY``: a model repository for NVIDIA Triton Inference Server."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from align_runtime import golden
from align_runtime.bundle import Bundle
from align_runtime.commands.bundle_arguments import add_bundle_arguments, open_bundle
from align_runtime.commands.image_arguments import add_image_options, chosen_images
from align_runtime.console import CommandParser, add_output_options, positive_int, run, say, say_json, table
from align_runtime.errors import ConfigurationError
from align_runtime.golden import Golden
from align_runtime.graph_entry import TOWERS
from align_runtime.image_options import DEFAULT_IMAGES
from align_runtime.user_path import user_path
from align_serving.triton.graph_models import graph_model
from align_serving.triton.options import BACKENDS, PYTHON, ServingOptions
from align_serving.triton.repository import write_repository
from align_serving.triton.served_model import ServedModel
from align_serving.triton.string_models import string_model

DEFAULTS = ServingOptions()
MAKERS: dict[str, Callable[[Bundle, str, ServingOptions, Golden], ServedModel]] = {
    name: string_model if name == PYTHON else graph_model for name in BACKENDS
}


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 written, 2 a wrong call."""
    parser = CommandParser(
        prog="align-triton",
        description="Write a model repository for NVIDIA Triton Inference Server: models that take texts and encoded "
        "images (the python backend), or the graphs themselves. It is written whole or not at all.",
    )
    add_bundle_arguments(parser)
    parser.add_argument("repository", metavar="REPOSITORY", type=user_path, help="folder to write")
    models = parser.add_argument_group("models")
    models.add_argument(
        "--backend",
        choices=tuple(BACKENDS),
        default=DEFAULTS.backend,
        help="python: texts and encoded images in, this runtime computes; onnxruntime, tensorrt: graphs and engines, "
        f"for clients that tokenize and preprocess (default: {DEFAULTS.backend})",
    )
    models.add_argument(
        "--name", default=DEFAULTS.name, help=f"what names of models begin with (default: {DEFAULTS.name})"
    )
    models.add_argument("--towers", nargs="+", choices=TOWERS, default=list(TOWERS), help="default: both")
    models.add_argument("--precision", default=DEFAULTS.precision, help=f"default: {DEFAULTS.precision}")
    models.add_argument("--device", help="where the models run (default: cpu; with tensorrt, tensorrt)")
    models.add_argument(
        "--gpu", metavar="NAME", help="tensorrt: the GPU whose engine is served, as align-inspect prints"
    )
    models.add_argument(
        "--keep",
        type=positive_int,
        default=DEFAULTS.keep,
        metavar="N",
        help="versions of a model that stay in the repository; the one that is written is the next "
        f"(default: {DEFAULTS.keep})",
    )
    models.add_argument("--link", action="store_true", help="hard links to the bundle's files in place of copies")
    load = parser.add_argument_group("load")
    load.add_argument(
        "--instances",
        type=positive_int,
        default=DEFAULTS.instances,
        metavar="N",
        help="copies of each model, on each GPU",
    )
    load.add_argument("--threads", type=positive_int, metavar="N", help="of one instance on a CPU (default: all cores)")
    load.add_argument("--max-batch", type=positive_int, metavar="N", help="most rows of a batch (default: by device)")
    load.add_argument(
        "--queue-delay",
        type=int,
        default=DEFAULTS.queue_delay,
        metavar="MICROSECONDS",
        help=f"a request waits so long for others to run with (default: {DEFAULTS.queue_delay})",
    )
    load.add_argument(
        "--queue-size", type=int, default=DEFAULTS.queue_size, metavar="N", help="requests that may wait (default: any)"
    )
    add_image_options(parser.add_argument_group("images, with the python backend"))
    add_output_options(parser)
    return run(parser, arguments, _write)


def _write(arguments: argparse.Namespace) -> int:
    images = chosen_images(arguments)
    if images != DEFAULT_IMAGES and arguments.backend != PYTHON:
        raise ConfigurationError(
            f"--alpha, --formats and --max-pixels are for clients of the {arguments.backend} backend, which decode the "
            "images; leave them out"
        )
    options = ServingOptions(
        backend=arguments.backend,
        name=arguments.name,
        towers=tuple(name for name in TOWERS if name in arguments.towers),
        precision=arguments.precision,
        device=arguments.device,
        instances=arguments.instances,
        threads=arguments.threads,
        max_batch=arguments.max_batch,
        queue_delay=arguments.queue_delay,
        queue_size=arguments.queue_size,
        keep=arguments.keep,
        gpu=arguments.gpu,
        link=arguments.link,
        images=images,
    )
    bundle = open_bundle(arguments, complete=False)
    inputs = golden.read(bundle)
    models = [MAKERS[options.backend](bundle, tower, options, inputs) for tower in options.towers]
    written = write_repository(bundle, arguments.repository, models, options)
    notes = [*bundle.manifest.provenance.remarks, *dict.fromkeys(model.note for model in models if model.note)]
    if arguments.json:
        say_json({"repository": str(arguments.repository), "models": written.models, "notes": notes})
        return 0
    rows = [
        [name, number, version["backend"], version["tower"], version["precision"], version["device"]]
        for name, model in sorted(written.models.items())
        for number, version in model["versions"].items()
    ]
    say([
        f"{arguments.repository}: models of {bundle.manifest.provenance.name}",
        *table(["model", "version", "backend", "tower", "precision", "device"], rows),
        *(f"NOTE {note}" for note in notes),
    ])  # fmt: skip
    return 0
