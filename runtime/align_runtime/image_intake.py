"""How the images of a call come in: each is taken in the calling thread, and prepared in any thread.

An image may be the frame of a file that moves on, a buffer that its owner fills again, or a file object with a
position. So it is detached from all of that before the next one is asked for: what can change is copied, what is read
from a shared file is read. Bytes cannot change. Nor does what lies in a list, which no code of the caller's makes while
it is read: it is only decoded where several items may share a decoder, and the files that paths name are read later.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from threading import Lock, RLock
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from align_runtime.errors import InputError
from align_runtime.image_options import ImageOptions
from align_runtime.images import Encoded, ImageInput, decode, fit, load_pil, path_of, read_encoded
from align_runtime.preprocessing import ImagePreprocessing

MAX_WAITING_BYTES = 256 << 20  # 5 images of 12 megapixels as Pillow holds them

Detached: TypeAlias = Encoded | str | os.PathLike[str] | Image.Image | NDArray[Any]
Prepared: TypeAlias = tuple[int, NDArray[np.uint8] | InputError]  # pixels (height, width, 3)


@dataclass(frozen=True)
class Taken:
    """An image that no longer depends on its owner, or why it cannot be used, or, prepared already, its pixels."""

    index: int
    image: Detached | None
    waiting_bytes: int = 0
    done: NDArray[np.uint8] | InputError | None = None


class ImageIntake:
    """The images of one call.

    Images that wait for a thread hold at most `MAX_WAITING_BYTES`, and one image more: beyond that the calling thread
    prepares images itself.
    """

    def __init__(self, preprocessing: ImagePreprocessing, options: ImageOptions) -> None:
        self._preprocessing = preprocessing
        self._options = options
        self._waiting_bytes = 0
        self._lock = Lock()

    def taken(self, numbered: Iterable[tuple[int, ImageInput]], listed: bool) -> Iterator[Taken]:
        """Yields each image of `numbered`, taken before the next one is asked for.

        Args:
            listed: the images lie in a list, see `is_listed`.
        """
        for index, image in numbered:
            yield self._take(index, image, listed)

    def prepare(self, taken: Taken) -> Prepared:
        """The pixels of an image, or why it cannot be used, in any thread."""
        if taken.image is None:
            assert taken.done is not None
            return taken.index, taken.done
        try:
            return taken.index, fit(decode(taken.image, self._options), self._preprocessing)
        except InputError as error:
            return taken.index, error.at(taken.index)
        finally:
            with self._lock:
                self._waiting_bytes -= taken.waiting_bytes

    def _take(self, index: int, image: ImageInput, listed: bool) -> Taken:
        try:
            detached = detach(image, listed, self._options)
        except InputError as error:
            return Taken(index, None, done=error.at(index))
        size = 0 if detached is image else _size(detached)
        with self._lock:
            self._waiting_bytes += size
            crowded = self._waiting_bytes > MAX_WAITING_BYTES
        taken = Taken(index, detached, size)
        return Taken(index, None, done=self.prepare(taken)[1]) if crowded else taken


def is_listed(images: object) -> bool:
    """Whether `images` holds its items, unlike an iterator or a class that makes them when asked."""
    return type(images) in (list, tuple, np.ndarray)


def detach(image: ImageInput, listed: bool, options: ImageOptions) -> Detached:
    """What `image` is now, whatever its owner does with it later.

    Raises:
        InputError: it cannot be read, or cannot be an image.
    """
    if isinstance(image, Image.Image):
        return _decoded(image, listed, options)
    if isinstance(image, np.ndarray):
        # What no image can be is not copied: it is refused whatever becomes of it.
        return image if listed or image.dtype != np.uint8 or image.size > 4 * options.max_pixels else np.array(image)
    if listed and isinstance(image, str | os.PathLike):
        return path_of(image)
    return read_encoded(image, options)


def _decoded(image: Image.Image, listed: bool, options: ImageOptions) -> Image.Image:
    """`image` with its pixels in memory; a copy unless it is `listed`."""
    with _lock_of(image):
        return load_pil(image, options, copied=not listed)


def _size(image: Detached) -> int:
    """The bytes that `image` holds while it waits."""
    if isinstance(image, Image.Image):
        return 4 * image.width * image.height  # as Pillow holds RGB
    if isinstance(image, Encoded):
        return len(image.data)
    return image.nbytes if isinstance(image, np.ndarray) else 0


# Pillow decodes an image on its first use, and two threads that do so at once get a damaged image. Images cannot be
# hashed, so each finds its lock by its address; two that share one wait for each other.
_LOCKS = [RLock() for _ in range(61)]


def _lock_of(image: Image.Image) -> RLock:
    return _LOCKS[id(image) // 16 % len(_LOCKS)]


def _renew_locks() -> None:
    """In a forked child, where the threads that held a lock are gone."""
    _LOCKS[:] = [RLock() for _ in _LOCKS]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
