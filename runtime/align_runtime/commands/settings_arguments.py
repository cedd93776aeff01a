"""``--precision``, ``--device``, ``--threads`` and ``--tuned``, the same for every command that loads a model so."""

from __future__ import annotations

import argparse
from typing import Any

from align_runtime.console import add_device_options, chosen_device
from align_runtime.load_options import LoadOptions
from align_runtime.tuning import TARGETS


def add_settings_options(parser: argparse.ArgumentParser) -> None:
    """Adds them; see `chosen_settings`."""
    parser.add_argument("--precision", help="precision of the graphs, one that the bundle holds (default: fp32)")
    add_device_options(parser)
    parser.set_defaults(device=None)  # whether it was given counts beside --tuned
    parser.add_argument(
        "--tuned",
        metavar="TARGET",
        help=f"take precision, device, threads and streams from what align-bench tune measured on this machine: "
        f"{' or '.join(TARGETS)}, or the file of its --output",
    )


def chosen_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `align_runtime.load` that `options` are, with ``auto`` resolved.

    Raises:
        ConfigurationError: threads for a GPU, or another of these options beside ``--tuned``.
    """
    if options.tuned is None:
        options.device = options.device or "cpu"
        return {"precision": options.precision, "device": chosen_device(options), "threads": options.threads}
    settings = {name: getattr(options, name) for name in ("precision", "device", "threads", "tuned")}
    LoadOptions(**settings)
    return settings
