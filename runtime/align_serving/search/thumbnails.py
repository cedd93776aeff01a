"""Small images of the rows that are found, decoded within the bounds of the runtime."""

from __future__ import annotations

import threading
from collections import OrderedDict
from io import BytesIO

from PIL import Image

from align_runtime.errors import InputError
from align_runtime.image_options import ImageOptions
from align_runtime.images import Encoded, decode
from align_serving.search.image_places import ImagePlace
from align_serving.search.index import Index

SIDE, QUALITY = 320, 82
KEPT_BYTES = 64 << 20
AT_ONCE = 2  # images that are decoded, 3 bytes a pixel each


class Thumbnails:
    """JPEG files of at most `SIDE` pixels on a side, the last ones kept. Any number of threads may call it."""

    def __init__(self, options: ImageOptions) -> None:
        self._options = options
        self._kept: OrderedDict[ImagePlace, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._decoders = threading.BoundedSemaphore(AT_ONCE)

    def of(self, index: Index, row: int) -> bytes:
        """The JPEG file of a row of images.

        Raises:
            InputError: why there is none.
        """
        place = index.image(row)
        if place is None:
            raise InputError(index.facts.problem or "the image was not among the inputs when the index was built")
        with self._lock:
            if place in self._kept:
                self._kept.move_to_end(place)
                return self._kept[place]
        with self._decoders:
            made = self._made(place)
        with self._lock:
            self._bytes += len(made) - len(self._kept.pop(place, b""))
            self._kept[place] = made
            while self._bytes > KEPT_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return made

    def _made(self, place: ImagePlace) -> bytes:
        image = decode(Encoded(place.read(self._options.max_file_bytes), "the image"), self._options)
        image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
        file = BytesIO()
        image.save(file, "JPEG", quality=QUALITY)
        return file.getvalue()
