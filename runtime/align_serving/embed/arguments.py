"""Options of ``align-embed``: inputs, result, Ray."""

from __future__ import annotations

import argparse

from align_runtime.console import positive_int
from align_runtime.devices import AUTO, backend_of
from align_runtime.errors import ConfigurationError
from align_serving.embed.encodings import ENCODINGS
from align_serving.embed.items import Kind
from align_serving.embed.shard_files import FORMATS

SHARD_ITEMS: dict[Kind, int] = {"images": 4096, "texts": 16384}  # about ten minutes of a CPU at full size
LOCAL = "local"  # cluster of this process alone; without an address, Ray joins any that runs on this machine


def add_input_options(parser: argparse.ArgumentParser) -> None:
    """What is embedded, and under which ids."""
    group = parser.add_argument_group("inputs")
    kinds = group.add_mutually_exclusive_group()
    kinds.add_argument(
        "--images",
        dest="kind",
        action="store_const",
        const="images",
        help="text files and strings in Parquet are paths of images, relative to their file",
    )
    kinds.add_argument("--texts", dest="kind", action="store_const", const="texts", help="refuse inputs with images")
    group.add_argument(
        "--column",
        metavar="NAME",
        help="column or key to embed (default: text or caption; for images: image, path, file_name or file)",
    )
    group.add_argument(
        "--id-column", metavar="NAME", help="column or key of the ids (default: id if there is one, else FILE:ROW)"
    )
    group.add_argument(
        "--qualified-ids", action="store_true", help="put the path of an archive before the names of its images"
    )


def add_result_options(parser: argparse.ArgumentParser) -> None:
    """How it is stored, and in which parts."""
    group = parser.add_argument_group("result")
    group.add_argument(
        "--dtype", choices=list(ENCODINGS), default="float32", help="how embeddings are stored (default: float32)"
    )
    group.add_argument("--format", choices=list(FORMATS), default="parquet", help="of the shards (default: parquet)")
    group.add_argument(
        "--shard-items",
        type=positive_int,
        metavar="N",
        help="items of a shard, which is what a killed job loses (default: "
        + ", ".join(f"{size} {kind}" for kind, size in SHARD_ITEMS.items())
        + ")",
    )
    group.add_argument("--batch-size", type=positive_int, metavar="N", help="maximum number of items in one run")
    group.add_argument(
        "--max-errors", type=_count, metavar="N", help="give up at more items that cannot be used (default: any number)"
    )


def add_ray_options(parser: argparse.ArgumentParser) -> None:
    """Where it is computed; see `check_ray`."""
    group = parser.add_argument_group("Ray", "compute on a cluster; docs/ray.md")
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        nargs="?",
        const=LOCAL,
        type=_address,
        help="auto, or host:port; without ADDRESS a cluster of its own on this machine",
    )
    group.add_argument(
        "--actors", type=positive_int, metavar="N", help="models of the cluster (default: as many as fit)"
    )
    group.add_argument(
        "--gpus",
        type=_share,
        metavar="N",
        help="GPUs of each actor, also a share such as 0.5 (default: 1 with a device that is a GPU); its CPUs are "
        "--threads (default with --ray: 1)",
    )


def check_ray(options: argparse.Namespace) -> None:
    """Raises ConfigurationError for options that do not go with ``--ray``, or need it."""
    device = options.device
    if options.ray is None:
        for name in ("actors", "gpus"):
            if getattr(options, name) is not None:
                raise ConfigurationError(f"--{name} is for --ray; give both, or leave it out")
    elif device == AUTO or ":" in device:
        raise ConfigurationError(
            f"with --ray the nodes choose the GPU, so --device cannot be {device}; say cpu or cuda"
        )
    elif options.gpus is not None and backend_of(device).on_cpu:
        raise ConfigurationError(f"--gpus is for a device that is a GPU, not for {device}; say --device cuda")


def _address(text: str) -> str:
    """For ``type=``: an address of a cluster."""
    if text not in (LOCAL, "auto") and ":" not in text:
        raise argparse.ArgumentTypeError(f"expected auto or host:port, got {text!r}; put --ray behind the inputs")
    return text


def _share(text: str) -> float:
    """For ``type=``: a share of a GPU, or a number of them."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (0 < value < 1 or (value >= 1 and value.is_integer())):  # Ray's own rule
        raise argparse.ArgumentTypeError(f"expected an integer, or a number between 0 and 1, got {text!r}")
    return value


def _count(text: str) -> int:
    """For ``type=``: 0 or more."""
    return 0 if text == "0" else positive_int(text)
