"""Trimming: a smaller copy of a bundle, with some of its towers and precisions, for a service that needs no more."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from align_runtime.bundle import Bundle, sha256_of
from align_runtime.bundle_writing import staged, write_manifest
from align_runtime.engine_files import keep_engines
from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import shortened
from align_runtime.graph_entry import Graph

OPTION = "trimmed"  # in the provenance: an export with the same options is not what lies there


def trim(bundle: Bundle, output: Path, towers: Sequence[str], precisions: Sequence[str], link: bool = False) -> Bundle:
    """Writes the graphs of `towers` in `precisions`, with everything else that a bundle has, to `output`.

    Golden vectors and tokenizer stay, so `align-verify` checks the copy as it does the whole; engines stay with their
    graphs; the report, which describes one export, does not. `output` may be the bundle itself. It is written whole or
    not at all.

    Args:
        towers, precisions: what stays; empty for all.
        link: make hard links, except of engines; nobody may write into files of either then.

    Raises:
        ConfigurationError: one is not in the bundle, `output` cannot be replaced, or a file cannot be linked.
        BundleError: a file is missing or was changed after the export.
    """
    manifest, place = bundle.manifest, output.resolve()
    if place != bundle.folder.resolve() and place.is_relative_to(bundle.folder.resolve()):
        raise ConfigurationError(f"{output} is inside the bundle {bundle.folder}; name a folder outside of it")
    _check("tower", towers, [graph.tower for graph in manifest.graphs])
    _check("precision", precisions, [graph.variant for graph in manifest.graphs])
    kept = tuple(graph for graph in manifest.graphs if _stays(graph, towers, precisions))
    if not kept:
        chosen = f"{' or '.join(towers)} in {' or '.join(precisions)}"
        raise ConfigurationError(f"no graph of {bundle.folder} is of {chosen}; align-inspect lists them")
    dropped = {name for graph in manifest.graphs for name in graph.files}.difference(
        name for graph in kept for name in graph.files
    )
    options = dict(manifest.provenance.options)
    options[OPTION] = sorted({f"{graph.tower} {graph.variant}" for graph in kept})
    trimmed = replace(
        manifest,
        provenance=replace(manifest.provenance, options=options),
        graphs=kept,
        files={name: entry for name, entry in manifest.files.items() if name not in dropped},
    )
    with staged(output) as folder:
        for name in trimmed.files:
            put_copy(bundle.path(name), folder / name, link)
            bundle.check_digest(name, sha256_of(folder / name))
        keep_engines(bundle.folder, folder, trimmed)
        write_manifest(folder, trimmed)
    return Bundle.open(output)


def _check(kind: str, chosen: Sequence[str], known: list[str]) -> None:
    for name in chosen:
        if name not in known:
            raise ConfigurationError(
                f"{kind} {shortened(name)} is not in the bundle; it has: {', '.join(dict.fromkeys(known))}"
            )


def _stays(graph: Graph, towers: Sequence[str], precisions: Sequence[str]) -> bool:
    return (not towers or graph.tower in towers) and (not precisions or graph.variant in precisions)


def put_copy(source: Path, target: Path, link: bool = False) -> None:
    """Copies the file `source` to `target`, whose folder is made, or makes a hard link.

    Raises:
        ConfigurationError: it cannot be linked.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if not link:
        shutil.copyfile(source, target)
        return
    try:
        os.link(source.resolve(), target)
    except OSError as reason:
        raise ConfigurationError(
            f"{source} cannot be linked to {target.parent} ({reason.strerror}); leave --link out, or write to the file "
            "system of the bundle"
        ) from None
