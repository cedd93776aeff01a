"""``align-search serve``: its options, and the server around the page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from align_runtime.console import say
from align_runtime.errors import BackendUnavailableError
from align_runtime.hub_bundle import FoundBundle
from align_runtime.load_options import LoadOptions
from align_runtime.standard_streams import complain
from align_serving.http.command import INSTALL, LOOPBACK, checked_port

if TYPE_CHECKING:
    from align_serving.search.index import Index

BODY_MIB = 32


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """``--host`` and ``--port``."""
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; whoever reaches another one than this machine's own sees all images and texts "
        "(default: 127.0.0.1)",
    )
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one and prints it (default: 8080)")


def serve_page(
    options: argparse.Namespace, found: FoundBundle, load: LoadOptions, open_indexes: Callable[[], list[Index]]
) -> int:
    """Serves the page until a signal.

    Raises:
        BackendUnavailableError: the packages of the server are not installed.
        ConfigurationError: it cannot listen there, or as in `open_index`.
    """
    try:
        from align_serving.http.limits import Limits
        from align_serving.http.opening import Opened, ServiceOptions, application
        from align_serving.http.server import Server, ServerOptions, bind, serve
        from align_serving.search.thumbnails import Thumbnails
        from align_serving.search.web import SearchPage
    except ImportError as error:
        raise BackendUnavailableError(f"the package {error.name!r} is missing; install it with: {INSTALL}") from None
    limits = Limits(body_bytes=BODY_MIB << 20)
    service_options = ServiceOptions(load=load, limits=limits)
    where = ServerOptions(options.host, checked_port(options.port), drain_seconds=0)
    with bind(where) as bound:  # first: a port in use is told before an index is built
        indexes = open_indexes()
        opened = Opened.of(Path(found.folder), service_options)
        local = options.host in LOOPBACK
        if not local:
            complain("align-search: whoever reaches this address sees the images and texts; there is no password")
        host = f"[{options.host}]" if ":" in options.host else options.host

        def ready(_: Server) -> None:
            say([] if options.quiet else [f"search at http://{host}:{bound.getsockname()[1]}/"])
            sys.stdout.flush()

        pages: list[SearchPage] = []

        def extend(app: object, service: object) -> None:
            page = SearchPage(indexes, Thumbnails(load.images), service)  # type: ignore[arg-type]
            page.add_to(app, LOOPBACK if local else None)  # type: ignore[arg-type]
            pages.append(page)

        with opened.towers.model:
            serve(application(opened, service_options, extend=extend), bound, limits, where, ready)
            for page in pages:
                page.close()
    return 0
