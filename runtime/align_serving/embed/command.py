"""``align-embed BUNDLE INPUT… -o OUT``: images or texts of any number into files of embeddings."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from align_runtime.bundle import Bundle
from align_runtime.commands.bundle_arguments import add_bundle_arguments
from align_runtime.commands.image_arguments import add_image_options, chosen_images
from align_runtime.console import (
    DISTRIBUTION,
    CommandParser,
    add_device_options,
    add_output_options,
    chosen_device,
    run,
    say,
    say_json,
)
from align_runtime.devices import backend_of
from align_runtime.errors import InputError
from align_runtime.hub_bundle import FoundBundle, find_bundle
from align_runtime.image_options import ImageOptions
from align_runtime.model import load
from align_runtime.processors import available_cores
from align_runtime.progress import Progress
from align_runtime.standard_streams import complain
from align_runtime.user_path import user_path
from align_serving.embed.arguments import SHARD_ITEMS, add_input_options, add_ray_options, add_result_options, check_ray
from align_serving.embed.arrow import import_pyarrow
from align_serving.embed.inputs import InputOptions, open_inputs
from align_serving.embed.items import Source, all_items
from align_serving.embed.job import Compute, JobOptions, check_finished, compute_with, embed_rest
from align_serving.embed.ledger import recorded_job
from align_serving.embed.output import ERRORS_NAME, ROWS_NAME, Output, open_output
from align_serving.embed.rows import Columns
from align_serving.embed.status import Status

PACKAGES = (DISTRIBUTION, "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tokenizers", "pillow")


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 2 a wrong call or input, or no item that can be embedded.

    Items in errors.jsonl beside rows are no failure.
    """
    parser = CommandParser(
        prog="align-embed",
        description="Embeds images or texts of any number into OUT: embeddings in shards, errors.jsonl for the items "
        "that cannot be used, and a ledger. Killed at any moment, it is resumed by the same command, and the rows are "
        "those of an uninterrupted run: docs/bulk.md",
    )
    add_bundle_arguments(parser)
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="images: folder, file, pattern, tar (WebDataset) or zip archive, Parquet with a column of encoded images; "
        "texts: .txt with one per line, .jsonl, .csv, Parquet",
    )
    parser.add_argument("-o", "--output", metavar="OUT", type=user_path, required=True, help="folder to write")
    add_input_options(parser)
    add_result_options(parser)
    add_ray_options(parser)
    parser.add_argument(
        "--precision", default="fp32", help="precision of the graphs, one that the bundle holds (default: fp32)"
    )
    add_image_options(parser)
    add_device_options(parser)
    add_output_options(parser)
    return run(parser, arguments, _embed)


def _embed(options: argparse.Namespace) -> int:
    check_ray(options)
    device, images = chosen_device(options), chosen_images(options)
    columns = Columns(options.column, options.id_column)
    sources = open_inputs(options.inputs, InputOptions(options.kind, columns, options.qualified_ids, images))
    if options.format == "parquet":
        import_pyarrow()
    if options.ray is not None:
        import_module("align_serving.embed.cluster")  # which says what to install
    found = find_bundle(options.bundle, options.revision, quiet=options.quiet or options.json)
    bundle = Bundle.open(found.folder, options.manifest_sha256, complete=False)
    job = _job(options, bundle, sources, device, images)
    job_options = JobOptions(job["kind"], job["embedding_dim"], job["shard_items"], options.max_errors)
    progress = Progress(options.quiet)
    status = Status(progress, job_options.kind, sum(source.units for source in sources))
    with open_output(options.output, job, _metadata(job, bundle)) as output:
        stream = all_items(sources)
        if output.ledger.shards:
            with progress.phase(f"comparing the inputs with {output.items:,} finished items"):
                check_finished(stream, output, job_options.shard_items, status)
        if not output.ledger.complete:
            _note_run(output, progress, options.ray is not None)
            try:
                with (
                    _computing(
                        options, found, job, sources, _load_options(options, job, device, images), progress
                    ) as compute,
                    progress.phase(f"embedding {job_options.kind}"),
                ):
                    embed_rest(compute, stream, output, job_options, status)
            except BaseException:
                if output.items:
                    complain(f"align-embed: {output.items:,} items are finished; run the same command to resume")
                raise
        _report(options, output, status)
        return 0 if output.rows else InputError.exit_code


def _job(
    options: argparse.Namespace, bundle: Bundle, sources: list[Source], device: str, images: ImageOptions
) -> dict[str, Any]:
    """What the rows depend on. Without ``--threads`` it is the number that the output was begun with."""
    kind, threads = sources[0].kind, None
    if backend_of(device).on_cpu:
        default = available_cores() if options.ray is None else 1
        threads = options.threads or (recorded_job(options.output) or {}).get("threads") or default
    job: dict[str, Any] = {
        "bundle": bundle.manifest_sha256,
        "embedding_dim": bundle.manifest.model.embedding_dim,
        "precision": options.precision,
        "device": device.partition(":")[0],
        "threads": threads,
        "kind": kind,
        "dtype": options.dtype,
        "format": options.format,
        "shard_items": options.shard_items or SHARD_ITEMS[kind],
        "batch_size": options.batch_size,
        "column": options.column,
        "id_column": options.id_column,
        "qualified_ids": options.qualified_ids,
        "inputs": [source.describe() for source in sources],
    }
    if kind == "images":
        job |= {"alpha": images.alpha, "formats": list(images.formats), "max_pixels": images.max_pixels}
    return job


def _metadata(job: dict[str, Any], bundle: Bundle) -> dict[str, str]:
    """What is stored with the rows."""

    manifest = bundle.manifest
    return {
        "model": manifest.provenance.name,
        "revision": manifest.provenance.revision or "",
        "bundle_sha256": bundle.manifest_sha256,
        "preprocessing": json.dumps(manifest.preprocessing.to_json()),
        **{key: str(job[key]) for key in ("embedding_dim", "kind", "dtype", "precision", "device")},
        **({"alpha": job["alpha"]} if "alpha" in job else {}),
    }


def _load_options(
    options: argparse.Namespace, job: dict[str, Any], device: str, images: ImageOptions
) -> dict[str, Any]:
    """Of `load`, in this process and in actors."""
    return {
        "precision": options.precision,
        "device": device,
        "towers": ("vision" if job["kind"] == "images" else "text",),
        "threads": job["threads"],
        "manifest_sha256": options.manifest_sha256,
        "alpha": images.alpha,
        "formats": images.formats,
        "max_pixels": images.max_pixels,
    }


@contextmanager
def _computing(
    options: argparse.Namespace,
    found: FoundBundle,
    job: dict[str, Any],
    sources: list[Source],
    load_options: dict[str, Any],
    progress: Progress,
) -> Iterator[Compute]:
    """What computes: a model in this process, or actors on a cluster."""
    if options.ray is None:
        with load(found.folder, check_hashes=found.downloaded, **load_options) as model:
            in_files = all(source.in_files for source in sources)
            yield compute_with(model, job["kind"], options.batch_size, in_files)
        return
    from align_serving.embed.calls import Actors
    from align_serving.embed.cluster import ActorOptions, connected

    on_gpu = job["threads"] is None
    actors = ActorOptions(
        Path.cwd(),
        options.bundle if found.downloaded else str(found.folder.absolute()),
        options.revision,
        job["bundle"],
        job["kind"],
        load_options,
        options.batch_size,
        options.actors,
        cpus=0 if on_gpu else job["threads"],
        gpus=(options.gpus or 1) if on_gpu else 0,
    )
    with connected(options.ray, actors):
        yield Actors(actors, progress)


def _note_run(output: Output, progress: Progress, on_ray: bool) -> None:
    """Writes into the ledger what computes the rows that follow; another version may differ in their last bits."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    runs = output.ledger.runs
    for package, now in versions.items():
        before = runs[0].get("versions", {}).get(package) if runs else None
        if before not in (None, now):
            progress.warn(f"{package} is {now}, and the first rows were computed with {before}: last bits may differ")
    if runs and runs[0].get("ray", on_ray) != on_ray:
        progress.warn("the first rows were computed with --ray, or without it, unlike now: last bits may differ")
    output.ledger.add_run({"process": os.getpid(), "versions": versions, "ray": on_ray})


def _report(options: argparse.Namespace, output: Output, status: Status) -> None:
    items, rows, folder = output.items, output.rows, options.output
    errors = items - rows
    if options.json:
        say_json(
            {
                "output": str(folder),
                "items": items,
                "rows": rows,
                "errors": errors,
                "embedded_now": status.items,
                "seconds": round(status.seconds, 3),
            }
        )
        return
    say([f"{rows:,} rows in {Path(folder) / ROWS_NAME}"])
    if errors:
        say([f"{errors:,} items could not be embedded: {Path(folder) / ERRORS_NAME}"])
