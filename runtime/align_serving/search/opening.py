"""Opens folders of embeddings to search them with the model that embedded them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align_runtime.bundle import Bundle
from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import shortened
from align_runtime.image_options import DROP, ImageOptions
from align_runtime.progress import Progress
from align_serving.embed.reading import StoredEmbeddings, open_embeddings
from align_serving.search.index import Index, open_index

# What queries and rows must have in common, and what it is for images alone.
SHARED, SHARED_BY_IMAGES = ("bundle", "precision"), ("alpha", "formats", "max_pixels")


def open_folders(folders: Sequence[Path], bundle: Bundle) -> list[StoredEmbeddings]:
    """The embeddings in `folders`, all of `bundle`.

    Raises:
        ConfigurationError: one was not written by ``align-embed``, or with another bundle, precision or preprocessing.
    """
    opened = [open_embeddings(folder) for folder in folders]
    for stored in opened:
        made = stored.job["bundle"]
        if made != bundle.manifest_sha256:
            raise ConfigurationError(
                f"{stored.folder} was embedded with another bundle than {bundle.folder}: its align.json had the sha256 "
                f"{str(made)[:12]}…, now it is {bundle.manifest_sha256[:12]}…; pass that bundle, or embed again"
            )
    for key in SHARED + SHARED_BY_IMAGES:
        having = [stored for stored in opened if key in SHARED or stored.job["kind"] == "images"]
        for stored in having[1:]:
            first, other = having[0].job[key], stored.job[key]
            if first != other:
                raise ConfigurationError(
                    f"{having[0].folder} was embedded with {key} {shortened(first)}, {stored.folder} with "
                    f"{shortened(other)}; search them one by one"
                )
    return opened


def query_options(opened: Sequence[StoredEmbeddings]) -> tuple[str, ImageOptions]:
    """The precision of queries, and how their images are decoded: as the rows were."""
    images: dict[str, Any] = next((stored.job for stored in opened if stored.job["kind"] == "images"), {})
    options = ImageOptions(images["alpha"], images["formats"], images["max_pixels"]) if images else ImageOptions(DROP)
    return str(opened[0].job["precision"]), options


def open_indexes(
    opened: Sequence[StoredEmbeddings], kind: str, progress: Progress, anew: bool = False, parent: Path | None = None
) -> list[Index]:
    """The index `kind` of each; see `open_index`."""
    indexes = []
    for stored in opened:
        if not stored.complete:
            progress.warn(f"{stored.folder} is not complete: {stored.rows:,} rows of finished shards are searched")
        indexes.append(open_index(stored, kind, progress, anew, parent))
    return indexes
