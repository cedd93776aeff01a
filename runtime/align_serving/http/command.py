"""``align-serve BUNDLE``: the HTTP service on one machine, in one process."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from align_runtime.commands.bundle_arguments import add_bundle_arguments
from align_runtime.commands.image_arguments import add_image_options, chosen_images
from align_runtime.console import CommandParser, add_device_options, chosen_device, positive_int, run, say
from align_runtime.errors import BackendUnavailableError, ConfigurationError
from align_runtime.graph_entry import TOWERS
from align_runtime.hub_bundle import find_bundle
from align_runtime.load_options import LoadOptions
from align_serving.http.listening import (
    INSTALL,
    add_listening_options,
    address,
    checked_port,
    chosen_keys,
    warn_if_open,
)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 ended by a signal after all answers, 2 a wrong call or bundle."""
    parser = CommandParser(
        prog="align-serve",
        description="Serve a bundle over HTTP: embeddings of texts and images for clients of OpenAI's API, and "
        "zero-shot classification. Requests that come at once are computed together. SIGTERM ends it after the answers "
        "to what has come.",
    )
    add_bundle_arguments(parser)
    add_listening_options(parser, port=8000)
    _add_service_options(parser)
    _add_limits(parser)
    parser.add_argument("--precision", default="fp32", help="one that the bundle holds (default: fp32)")
    parser.add_argument(
        "--towers", nargs="+", choices=TOWERS, default=list(TOWERS), help="towers to load (default: all)"
    )
    parser.add_argument(
        "--streams", type=positive_int, help="single-threaded runs side by side (default: one per thread)"
    )
    add_image_options(parser)
    parser.set_defaults(max_pixels=1 << 25)
    add_device_options(parser)
    parser.add_argument("--quiet", "-q", action="store_true", help="no line on stdout")
    return run(parser, arguments, _serve)


def _add_service_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("service").add_argument
    add("--name", help="what clients call the model (default: the name of its checkpoint)")
    add(
        "--fetch-host",
        action="append",
        default=[],
        metavar="HOST[:PORT]",
        help="fetch images from URLs of this host; may be repeated (default: no URL is fetched)",
    )
    add(
        "--fetch-network",
        action="append",
        default=[],
        metavar="NETWORK",
        help="addresses that are not public which such a host may have, e.g. 10.0.0.0/8; may be repeated",
    )
    add("--drain", type=float, default=1.0, metavar="SECONDS", help="after SIGTERM, time for load balancers to notice")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("limits").add_argument
    add("--max-body", type=positive_int, default=32, metavar="MIB", help="of a request (default: 32)")
    add("--max-items", type=positive_int, default=2048, metavar="N", help="of a request (default: 2048)")
    add("--max-characters", type=positive_int, default=8192, metavar="N", help="of a text (default: 8192)")
    add(
        "--max-queue",
        type=positive_int,
        default=4096,
        metavar="N",
        help="items that wait; more get 429 (default: 4096)",
    )
    add("--max-queue-mib", type=positive_int, default=256, metavar="MIB", help="bodies that wait (default: 256)")
    add("--timeout", type=positive_int, default=60, metavar="SECONDS", help="for an answer (default: 60)")
    add("--text-batch", type=positive_int, default=64, metavar="N", help="most texts in one run (default: 64)")
    add("--image-batch", type=positive_int, default=16, metavar="N", help="most images in one run (default: 16)")


def _serve(options: argparse.Namespace) -> int:
    try:
        from align_serving.http.fetching import FetchOptions
        from align_serving.http.limits import Limits
        from align_serving.http.opening import Opened, ServiceOptions, application
        from align_serving.http.server import Server, ServerOptions, bind, serve
    except ImportError as error:
        raise BackendUnavailableError(f"the package {error.name!r} is missing; install it with: {INSTALL}") from None
    keys = chosen_keys(options)
    limits = Limits(
        body_bytes=options.max_body << 20,
        items=options.max_items,
        characters=options.max_characters,
        queue_items=options.max_queue,
        queue_bytes=options.max_queue_mib << 20,
        request_seconds=options.timeout,
    )
    bundle = find_bundle(options.bundle, options.revision, quiet=options.quiet)
    service = ServiceOptions(
        load=LoadOptions(
            precision=options.precision,
            device=chosen_device(options),
            towers=options.towers,
            threads=options.threads,
            streams=options.streams,
            check_hashes=bundle.downloaded,
            manifest_sha256=options.manifest_sha256,
            images=chosen_images(options),
        ),
        limits=limits,
        fetch=FetchOptions(options.fetch_host, options.fetch_network, max_bytes=limits.body_bytes),
        name=options.name,
        text_batch=options.text_batch,
        image_batch=options.image_batch,
        api_keys=keys,
    )
    where = ServerOptions(options.host, checked_port(options.port), _seconds(options.drain))
    with bind(where) as bound:  # first: a port in use is told before a model is loaded
        opened = Opened.of(Path(bundle.folder), service)
        warn_if_open("align-serve", options, keys, "may use it")
        info = opened.facts.info
        place = address(options.host, bound)
        line = f"serving {opened.facts.name} ({info.precision} on {info.device}) at {place}/v1"

        def ready(_: Server) -> None:
            say([] if options.quiet else [line])
            sys.stdout.flush()  # a pipe, too, gets it now

        with opened.towers.model:
            serve(application(opened, service), bound, limits, where, ready)
    return 0


def _seconds(seconds: float) -> float:
    if not 0 <= seconds <= 3600:
        raise ConfigurationError(f"--drain is {seconds}; expected 0 to 3600 seconds")
    return seconds
