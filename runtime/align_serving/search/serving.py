"""``align-search serve``: the server around the page."""

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
from align_serving.http.listening import INSTALL, LOOPBACK, address, checked_port, chosen_keys, warn_if_open

if TYPE_CHECKING:
    from align_serving.search.index import Index

BODY_MIB = 32


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
        from align_serving.search.web import PAGE, SearchPage
    except ImportError as error:
        raise BackendUnavailableError(f"the package {error.name!r} is missing; install it with: {INSTALL}") from None
    limits = Limits(body_bytes=BODY_MIB << 20)
    keys = chosen_keys(options)
    service_options = ServiceOptions(load=load, limits=limits, api_keys=keys)
    where = ServerOptions(options.host, checked_port(options.port), drain_seconds=0)
    with bind(where) as bound:  # first: a port in use is told before an index is built
        indexes = open_indexes()
        opened = Opened.of(Path(found.folder), service_options)
        warn_if_open("align-search", options, keys, "sees the images and texts")

        def ready(_: Server) -> None:
            say([] if options.quiet else [f"search at {address(options.host, bound)}/"])
            sys.stdout.flush()

        pages: list[SearchPage] = []

        def extend(app: object, service: object) -> None:
            page = SearchPage(indexes, Thumbnails(load.images), service)  # type: ignore[arg-type]
            page.add_to(app, LOOPBACK if options.host in LOOPBACK else None)  # type: ignore[arg-type]
            pages.append(page)

        with opened.towers.model:
            serve(application(opened, service_options, extend=extend, open_paths=PAGE), bound, limits, where, ready)
            for page in pages:
                page.close()
    return 0
