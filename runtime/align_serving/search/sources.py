"""What a row stands for: the text, or the place of an image, found in the inputs of the job that embedded it.

Only an input of the job is ever shown. An image of a folder must lie in it once all links are followed, an image that
was named by itself or in a list must not be a link, and a path that is shown later must still lead where it led then.
A file with many images or texts may be a link, as may a folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from align_runtime.errors import AlignError, InputError
from align_runtime.image_options import ImageOptions
from align_serving.embed.image_sources import ImageFolder
from align_serving.embed.inputs import InputOptions, open_inputs
from align_serving.embed.items import Item, ItemsDigest, all_items, file_identity
from align_serving.embed.output import ERRORS_NAME
from align_serving.embed.reading import StoredEmbeddings
from align_serving.embed.rows import Columns
from align_serving.search.image_places import ImagePlace

OTHERS = "the inputs are not those that were embedded"
UNKNOWN = b""  # of a row whose image or text is not found


class Sources:
    """The inputs of the job of `stored`, read once more, shard by shard.

    Attributes:
        problem: why rows are unknown; None as long as none is.
    """

    def __init__(self, stored: StoredEmbeddings) -> None:
        self.problem: str | None = None
        self._texts = stored.job["kind"] == "texts"
        self._errors = _error_items(stored)
        self._items = self._read(stored.job)
        self._first = 0

    def of_shard(self, items: int, digest: str, ids: list[str]) -> list[bytes]:
        """What the rows `ids` of the next shard, of `items` items, stand for.

        It is a text in UTF-8, an `ImagePlace` in bytes, or `UNKNOWN` where the inputs have changed: an image counts as
        the same by its id, and texts by the digest of their shard.
        """
        now, found = ItemsDigest(), []
        for number, (item, content) in enumerate(islice(self._items, items), start=self._first):
            now.add(item)
            if number not in self._errors:
                found.append((item.id, content))
        self._first += items
        same = len(found) == len(ids) and (not self._texts or now.hexdigest() == digest)
        if not same or any(id != name for id, (name, _) in zip(ids, found, strict=True)):
            self.problem = self.problem or OTHERS
        if not same:
            return [UNKNOWN] * len(ids)
        return [content if id == name else UNKNOWN for id, (name, content) in zip(ids, found, strict=True)]

    def _read(self, job: dict[str, Any]) -> Iterator[tuple[Item, bytes]]:
        columns = Columns(job["column"], job["id_column"])
        images = ImageOptions(job.get("alpha", "drop"), job["formats"], job["max_pixels"]) if "formats" in job else None
        options = InputOptions(job["kind"], columns, job["qualified_ids"], *([images] if images else []))
        try:
            for value in job["inputs"]:
                (source,) = open_inputs([_named(value)], options)
                real, identity = os.path.realpath(source.name), file_identity(Path(source.name)).decode()
                root = Path(real) if isinstance(source, ImageFolder) else None
                for item in all_items([source]):
                    yield item, self._text(item) if self._texts else self._image(item, real, identity, root)
        except (AlignError, OSError) as reason:
            self.problem = self.problem or str(reason)

    def _text(self, item: Item) -> bytes:
        text = _loaded(item)
        return text.encode() if isinstance(text, str) else UNKNOWN

    def _image(self, item: Item, source: str, identity: str, root: Path | None) -> bytes:
        """`source` and `identity` are those of the file or folder that gave `item`, `root` is a folder."""
        try:
            place = item.place()
        except InputError as reason:
            self.problem = self.problem or f"of {Path(source).name}: {reason.message}"
            return UNKNOWN
        if place is not None:
            return ImagePlace(source, place, identity).to_bytes()
        path = _loaded(item)
        if not isinstance(path, Path):  # its row is in errors.jsonl
            return UNKNOWN
        real = os.path.realpath(path)
        if root is None:  # links in the folder's own path are the user's
            inside = Path(real) == Path(os.path.realpath(path.parent)) / path.name
        else:
            inside = Path(real).is_relative_to(root)
        if not inside:
            self.problem = self.problem or f"the path {path} is a link{' out of its folder' if root else ''}"
            return UNKNOWN
        return ImagePlace(real).to_bytes()


def _loaded(item: Item) -> object:
    try:
        return item.load()
    except (AlignError, OSError):
        return None


def _named(description: dict[str, Any]) -> str:
    """The path of an input, the first value of `Source.describe`; as it was written, relative to where it was."""
    return str(next(iter(description.values())))


def _error_items(stored: StoredEmbeddings) -> set[int]:
    """The numbers of the items without a row, of finished shards."""
    end = stored.records[-1].errors_end if stored.records else 0
    if not end:
        return set()
    with (stored.folder / ERRORS_NAME).open("rb") as file:
        return {json.loads(line)["item"] for line in file.read(end).splitlines()}
