"""``align-search find | index | serve``: searches what ``align-embed`` wrote."""

from __future__ import annotations

import argparse
from typing import Any

from align_runtime.bundle import Bundle
from align_runtime.commands.bundle_arguments import add_bundle_arguments
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
from align_runtime.errors import ConfigurationError
from align_runtime.hub_bundle import FoundBundle, find_bundle
from align_runtime.image_options import ImageOptions
from align_runtime.load_options import LoadOptions
from align_runtime.loading import open_parts
from align_runtime.model import Model
from align_runtime.progress import Progress
from align_runtime.user_path import expanded, user_path
from align_serving.embed.reading import StoredEmbeddings
from align_serving.http.listening import add_listening_options
from align_serving.search.approximate import APPROXIMATIONS, EXACT
from align_serving.search.index import Hit, Index
from align_serving.search.opening import open_folders, open_indexes, query_options
from align_serving.search.serving import serve_page
from align_serving.search.sheet import contact_sheet
from align_serving.search.thumbnails import Thumbnails

MAX_TOP = 1000


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 2 a wrong call or query."""
    parser = CommandParser(
        prog="align-search",
        description="Search embeddings that align-embed wrote: images or texts that are near to a text or an image. An "
        "index is built beside the embeddings when it is first needed: docs/search.md",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=CommandParser)
    find = commands.add_parser("find", help="print what is nearest to queries", description="Print what is nearest.")
    _add_shared(find)
    _add_find_options(find)
    find.set_defaults(body=_find)
    index = commands.add_parser(
        "index", help="build the index anew", description="Build the index anew, e.g. after images were moved back."
    )
    _add_shared(index)
    add_output_options(index)
    index.set_defaults(body=_index)
    serve = commands.add_parser(
        "serve", help="a page in a browser", description="Serve a page to search in a browser, and align-serve's API."
    )
    _add_shared(serve)
    add_listening_options(serve, port=8080)
    add_device_options(serve)
    serve.add_argument("--quiet", "-q", action="store_true", help="no progress, no line on stdout")
    serve.set_defaults(body=_serve, json=False)
    return run(parser, arguments, lambda options: options.body(options))


def _add_shared(parser: argparse.ArgumentParser) -> None:
    add_bundle_arguments(parser)
    parser.add_argument(
        "folders", metavar="EMBEDDINGS", nargs="+", type=user_path, help="folders that align-embed wrote with BUNDLE"
    )
    parser.add_argument(
        "--index",
        choices=[EXACT, *APPROXIMATIONS],
        default=EXACT,
        help="exact search, or an approximate index whose recall is measured when it is built (default: exact)",
    )
    parser.add_argument(
        "--index-folder",
        metavar="FOLDER",
        type=user_path,
        help="keep indexes there, e.g. where EMBEDDINGS cannot be written (default: in EMBEDDINGS)",
    )


def _add_find_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", metavar="TEXT", action="append", default=[], help="a query; may be repeated")
    parser.add_argument(
        "--image", metavar="FILE", action="append", type=expanded, default=[], help="a query; may be repeated"
    )
    parser.add_argument("--top", type=positive_int, default=10, metavar="N", help="results per query (default: 10)")
    parser.add_argument("--html", type=user_path, metavar="FILE", help="also write them as a page with the images")
    add_device_options(parser)
    add_output_options(parser)


def _find(options: argparse.Namespace) -> int:
    device = chosen_device(options)
    if not options.text and not options.image:
        raise ConfigurationError("there is no query; pass --text or --image")
    if options.top > MAX_TOP:
        raise ConfigurationError(f"--top is {options.top}; expected at most {MAX_TOP}")
    found, opened = _opened(options)
    precision, images = query_options(opened)
    towers = [name for name, wanted in (("vision", options.image), ("text", options.text)) if wanted]
    progress = Progress(options.quiet or options.json)
    indexes = open_indexes(opened, options.index, progress, parent=options.index_folder)
    with Model(open_parts(found.folder, _load_options(options, found, precision, device, towers, images))) as model:
        rows = [*model.embed_texts(options.text)] if options.text else []
        rows += [*model.embed_images(options.image)] if options.image else []
    names = [f"“{text}”" for text in options.text] + options.image
    results = [(name, [(index, index.search(row[None], options.top)[0]) for index in indexes]) for name, row in
               zip(names, rows, strict=True)]  # fmt: skip
    if options.html:
        options.html.write_text(contact_sheet("Search results", results, Thumbnails(images)), encoding="utf-8")
    queries = [{"text": text} for text in options.text] + [{"image": image} for image in options.image]
    if options.json:
        entries = [query | {"results": _as_json(found)} for query, (_, found) in zip(queries, results, strict=True)]
        say_json({"index": options.index, "queries": entries})
    else:
        for name, found_in in results:
            say([name, *_as_table(found_in), ""])
    return 0


def _index(options: argparse.Namespace) -> int:
    _, opened = _opened(options)
    progress = Progress(options.quiet or options.json)
    indexes = open_indexes(opened, options.index, progress, anew=True, parent=options.index_folder)
    if options.json:
        say_json({"indexes": [{"folder": str(index.stored.folder), **index.facts.to_json()} for index in indexes]})
        return 0
    for index in indexes:
        facts = index.facts
        size = sum(facts.files.values())
        say([f"{index.stored.folder}: {facts.rows:,} rows, {facts.kind}, {size / 1e6:,.1f} MB"])
        if facts.recall is not None:
            say([f"recall at 10 against exact search: {facts.recall:.3f} (rows as queries)"])
        if facts.shown < facts.rows:
            say([f"{facts.rows - facts.shown:,} rows have ids alone: {facts.problem}"])
    return 0


def _serve(options: argparse.Namespace) -> int:
    device = chosen_device(options)
    found, opened = _opened(options)
    precision, images = query_options(opened)
    load = _load_options(options, found, precision, device, ["vision", "text"], images)
    progress = Progress(options.quiet)
    return serve_page(
        options, found, load, lambda: open_indexes(opened, options.index, progress, parent=options.index_folder)
    )


def _opened(options: argparse.Namespace) -> tuple[FoundBundle, list[StoredEmbeddings]]:
    found = find_bundle(options.bundle, options.revision, quiet=options.quiet or options.json)
    bundle = Bundle.open(found.folder, options.manifest_sha256, complete=False)
    return found, open_folders(options.folders, bundle)


def _load_options(
    options: argparse.Namespace,
    found: FoundBundle,
    precision: str,
    device: str,
    towers: list[str],
    images: ImageOptions,
) -> LoadOptions:
    return LoadOptions(
        precision=precision,
        device=device,
        towers=towers,
        threads=options.threads,
        check_hashes=found.downloaded,
        manifest_sha256=options.manifest_sha256,
        images=images,
    )


def _as_json(found: list[tuple[Index, list[Hit]]]) -> list[dict[str, Any]]:
    return [
        {
            "folder": str(index.stored.folder),
            "rank": rank,
            "id": hit.id,
            "row": hit.row,
            "score": round(hit.score, 6),
            "text" if index.kind == "texts" else "path": hit.source,
        }
        for index, hits in found
        for rank, hit in enumerate(hits, start=1)
    ]


def _as_table(found: list[tuple[Index, list[Hit]]]) -> list[str]:
    hits = [(index.kind == "texts", rank, hit) for index, hits in found for rank, hit in enumerate(hits, start=1)]
    headings = ["rank", "score", "id", "text"] if any(is_text for is_text, _, _ in hits) else ["rank", "score", "id"]
    rows = [
        [str(rank), f"{hit.score:.4f}", hit.id, (hit.source or "") if is_text else ""][: len(headings)]
        for is_text, rank, hit in hits
    ]
    return table(headings, rows, right=(0, 1))
