"""The model that a service holds: texts and images in, unit-length embeddings out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from align_runtime.errors import InputError
from align_runtime.images import ImageInput
from align_runtime.loading import Parts, open_parts
from align_runtime.manifest import ModelFacts
from align_runtime.similarity import DEFAULT_TEMPLATE, captions, checked_embeddings, softmax


def load(
    bundle: str | os.PathLike[str],
    precision: str = "fp32",
    device: str = "cpu",
    threads: int | None = None,
    check_hashes: bool = False,
    streams: int | None = None,
) -> Model:
    """Opens a bundle.

    Args:
        bundle: the folder that ``align-export`` wrote.
        precision: the variant to run, as listed in the bundle.
        device: where to run it: ``"cpu"``; ``"cuda"``, an NVIDIA GPU through ONNX Runtime; ``"tensorrt"``, an engine of
            the bundle that was built for it. A device that cannot be had is an error, never another device. ``"auto"``
            takes ``"cuda"`` where it is installed and ``"cpu"`` elsewhere, and logs a line that says which.
        threads: of one run on the CPU, all cores when None.
        check_hashes: read every byte of the files used and compare their sha256 with the manifest; sizes are always
            compared.
        streams: on a CPU, how many single-threaded runs share the work where there are several images or texts; one
            per thread when None. 1 leaves every run all threads: less memory, for the weights are loaded once and not
            twice, and on two cores less throughput.

    Raises:
        BundleError: the bundle is missing or damaged.
        ConfigurationError: a precision or device that is not known or not in the bundle, or a number out of range.
        BackendUnavailableError: the device's package or library is missing.
    """
    return Model(open_parts(bundle, precision, device, threads, check_hashes, streams))


class Model:
    """A loaded bundle. One model may be used from many threads; close it, or use it as a context manager."""

    def __init__(self, parts: Parts) -> None:
        self._bundle = parts.bundle
        self._images = parts.images
        self._texts = parts.texts
        self._workers = parts.workers

    def __repr__(self) -> str:
        name, variant = self._bundle.manifest.provenance.name, self._texts.tower.graph.variant
        return f"<align_runtime.Model {name} {variant}, {self.facts.embedding_dim} dimensions>"

    @property
    def facts(self) -> ModelFacts:
        """Embedding length, temperature, text limit."""
        return self._bundle.manifest.model

    def embed_text(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Embeddings of `texts`, float32 (n, dim), unit rows in the order of the input; (0, dim) for none.

        A text longer than the model's limit is cut there, as the reference tokenizer does.

        Raises:
            InputError: something that is no text, with its place in the input.
        """
        return self._joined(self.iter_embed_text(texts))

    def iter_embed_text(self, texts: Iterable[str]) -> Iterator[NDArray[np.float32]]:
        """The rows of `embed_text` part by part, each float32 (some, dim): memory stays flat over any number of texts.

        `texts` are read some thousands at a time. Errors are those of `embed_text`, when their part is reached.
        """
        if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
            raise InputError(f"embed_text takes a list of texts, not a {_kind(texts)}; put one text into a list")
        return self._texts.parts(texts)

    def embed_images(self, images: Iterable[ImageInput]) -> NDArray[np.float32]:
        """Embeddings of `images`, float32 (n, dim), unit rows in the order of the input; (0, dim) for none.

        An image is a path, the bytes of a image file, a PIL image, or a uint8 array (H, W, 3), (H, W, 4), (H, W, 1)
        or (H, W); an array (n, H, W, channels) is a list of them. An iterator is read a few images ahead, so a long
        stream of images needs the memory of a few.

        Raises:
            InputError: a image that cannot be read, with its place in the input.
        """
        return self._joined(self.iter_embed_images(images))

    def iter_embed_images(self, images: Iterable[ImageInput]) -> Iterator[NDArray[np.float32]]:
        """The rows of `embed_images` part by part, each float32 (some, dim), as soon as they are there.

        Errors are those of `embed_images`, when their part is reached.
        """
        single = isinstance(images, str | bytes | bytearray | os.PathLike | Image.Image)
        if isinstance(images, np.ndarray):
            single = images.ndim in (2, 3)  # its rows would pass for grey images
        if single or not isinstance(images, Iterable):
            raise InputError(f"embed_images takes a list of images, not a {_kind(images)}; put one image into a list")
        return self._images.parts(images)

    def embed_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings of preprocessed images: uint8 (n, height, width, 3) → float32 (n, dim).

        Raises:
            InputError: an array of another type or size.
        """
        height, width = self._bundle.manifest.preprocessing.output_size
        pixels = np.asarray(pixels)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (height, width, 3):
            raise InputError(f"pixels are {pixels.dtype} {pixels.shape}; uint8 (n, {height}, {width}, 3) is needed")
        return self._images.embed_pixels(pixels)

    def similarity(self, images: ArrayLike, texts: ArrayLike) -> NDArray[np.float32]:
        """Logits float32 (n, m) of image embeddings (n, dim) against text embeddings (m, dim).

        As in ALIGN: the cosine divided by the checkpoint's temperature.

        Raises:
            InputError: arrays of another shape, or with NaN or infinite values.
        """
        dim = self.facts.embedding_dim
        rows, columns = checked_embeddings("images", images, dim), checked_embeddings("texts", texts, dim)
        return (rows @ columns.T / self.facts.temperature).astype(np.float32, copy=False)

    def classify(
        self, images: Iterable[ImageInput], labels: Iterable[str], template: str = DEFAULT_TEMPLATE
    ) -> NDArray[np.float32]:
        """Zero-shot probabilities float32 (n, labels) of `images` over `labels`; every row sums to 1.

        Args:
            template: the sentence that a label is put into, at ``{}``.

        Raises:
            ConfigurationError: no labels, a label that is no text, or a template without ``{}``.
            InputError: as in `embed_images` and `embed_text`.
        """
        texts = self.embed_text(captions(labels, template))
        return softmax(self.similarity(self.embed_images(images), texts))

    def warmup(self) -> None:
        """Runs every session once, on a GPU in every shape that it runs in, so that no real call pays for what is set
        up on first use."""
        self._images.tower.prepare()
        self._texts.tower.prepare()
        pixels = np.zeros((1, *self._bundle.manifest.preprocessing.output_size, 3), dtype=np.uint8)
        self.embed_pixels(pixels)
        self.embed_text([""])
        if self._images.tower.streams > 1:
            self.embed_images(np.repeat(pixels, self._images.tower.streams, axis=0))
            self.embed_text([""] * self._texts.streamed_from)

    def close(self) -> None:
        """Waits for what is under way and frees both towers. Embedding afterwards is an error; closing twice is not."""
        self._workers.close()
        self._images.tower.close()
        self._texts.tower.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _joined(self, parts: Iterator[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.concatenate([np.empty((0, self.facts.embedding_dim), dtype=np.float32), *parts])


def _kind(value: object) -> str:
    return type(value).__name__
