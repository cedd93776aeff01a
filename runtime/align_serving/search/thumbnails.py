"""Small images of the rows that are found, decoded within the bounds of the runtime."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from io import BytesIO
from pathlib import Path

from PIL import Image

from align_runtime.errors import InputError
from align_runtime.image_options import ImageOptions
from align_runtime.images import Encoded, decode
from align_runtime.regular_files import read_regular
from align_serving.search.index import Index

SIDE, QUALITY = 320, 82
KEPT_BYTES = 64 << 20
AT_ONCE = 2  # images that are decoded, 3 bytes a pixel each


class Thumbnails:
    """JPEG files of at most `SIDE` pixels on a side, the last ones kept. Any number of threads may call it."""

    def __init__(self, options: ImageOptions) -> None:
        self._options = options
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._decoders = threading.BoundedSemaphore(AT_ONCE)

    def of(self, index: Index, row: int) -> bytes:
        """The JPEG file of a row of images.

        Raises:
            InputError: why there is none.
        """
        path = index.source(row)
        if path is None:
            raise InputError(index.facts.problem or "the image was not among the inputs when the index was built")
        with self._lock:
            if path in self._kept:
                self._kept.move_to_end(path)
                return self._kept[path]
        with self._decoders:
            made = self._made(path)
        with self._lock:
            self._bytes += len(made) - len(self._kept.pop(path, b""))
            self._kept[path] = made
            while self._bytes > KEPT_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return made

    def _made(self, path: str) -> bytes:
        if os.path.realpath(path) != path:
            raise InputError("the path of the image is a link by now; links are not followed")
        if not Path(path).exists():
            raise InputError("the image is no longer there")
        data = read_regular(Path(path), self._options.max_file_bytes, InputError, "the image")
        image = decode(Encoded(data, "the image"), self._options)
        image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
        file = BytesIO()
        image.save(file, "JPEG", quality=QUALITY)
        return file.getvalue()
