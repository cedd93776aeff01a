"""The model: texts and images in, unit-length embeddings out."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from align_runtime.devices import Device
from align_runtime.embedded_rows import EmbeddedRows, OnError, check_inputs, check_on_error
from align_runtime.errors import InputError
from align_runtime.foreign_text import printable
from align_runtime.hub_bundle import find_bundle
from align_runtime.image_embedding import preprocessed
from align_runtime.image_options import DEFAULT_FORMATS, DEFAULT_MAX_PIXELS, DROP, ImageOptions
from align_runtime.images import ImageInput, is_image
from align_runtime.load_options import LoadOptions
from align_runtime.loading import Parts, open_parts
from align_runtime.model_info import ModelInfo
from align_runtime.scheduling import check_batch_size
from align_runtime.similarity import DEFAULT_TEMPLATE, captions, cosine, logits, softmax
from align_runtime.tuned_choice import Tuned

TowerName = Literal["vision", "text"]
MAX_NAME = 80  # characters of a name, which comes from the bundle, in a repr


def load(
    bundle: str | os.PathLike[str],
    *,
    precision: str | None = None,
    device: Device | None = None,
    towers: Sequence[TowerName] = ("vision", "text"),
    threads: int | None = None,
    streams: int | None = None,
    check_hashes: bool = False,
    decode_threads: int | None = None,
    mmap: bool = True,
    arena: bool = True,
    manifest_sha256: str | None = None,
    alpha: str = DROP,
    formats: Sequence[str] = DEFAULT_FORMATS,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    revision: str | None = None,
    tuned: Tuned = False,
) -> Model:
    """Opens a bundle.

    Args:
        bundle: the folder that ``align-export`` wrote, or the hub id (``"owner/name"``) of one that was uploaded to the
            Hugging Face hub; a path that exists takes precedence. See `revision`.
        precision: the variant to run, None for ``"fp32"``; `align-inspect` lists those of a bundle. On ``"openvino"``
            also ``"bf16"``, in which FP32 graphs are computed.
        device: ``"cpu"``, the default; ``"openvino"``, an Intel CPU through OpenVINO; ``"cuda"``, an NVIDIA GPU through
            ONNX Runtime; ``"tensorrt"``, an engine of the bundle built for this GPU; ``"tensorrt-rtx"``, one that
            TensorRT for RTX built for such GPUs; ``"auto"``, ``"cuda"`` where it is installed and ``"cpu"`` elsewhere,
            which is logged. ``"cuda:1"`` is the GPU with the index 1. A device that is not available is an error.
        towers: to load. One alone takes about half of the memory.
        threads: of one run on a CPU, and of the tokenizer; None for all cores that the process may use.
        streams: on a CPU, the number of single-threaded runs that share the work where there are several inputs; None
            for one per thread. With 1, every run has all threads: half the memory, and a lower throughput.
        check_hashes: also compare the sha256 of every file used with the manifest. Sizes are always compared, and
            hashes of a bundle from the hub.
        manifest_sha256: the sha256 that ``align.json`` must have, in hexadecimal; `align-inspect` prints it. It also
            protects from someone who changed the bundle, and hashes are checked. Engines cannot be pinned.
        revision: branch, tag or commit of a hub id. The files that the manifest lists are downloaded into its cache.
        alpha: what becomes of transparency in images: ``"drop"`` ignores it, as transformers' AlignProcessor does for a
            file; a colour (``"white"``, ``"#ffffff"``) is laid behind the image.
        formats: of encoded images that are decoded. ``"PPM"``, ``"JPEG2000"`` and ``"AVIF"``, whose time and memory are
            not bounded, can be added.
        max_pixels: maximum width × height of an image. A larger one is an error before it is decoded.
        decode_threads: that decode images ahead of the graph; None for as many as `threads`. A stream decodes its own.
        mmap: whether weights stay in their file, which processes share. Then nobody may write into the file while the
            model is open. With False they are copied into memory. A GPU has a copy anyway.
        arena: on a CPU, whether memory of finished runs is kept for the next ones, which is faster.
        tuned: take what ``align-bench tune`` measured on this machine in place of `precision`, `device`, `threads` and
            `streams`, which cannot stand beside it, and as the default of `batch_size`: True, ``"latency"`` or
            ``"throughput"`` from ``tuning.json`` in the bundle; a path from that file. See `info.settings`.

    Raises:
        BundleError: the bundle is missing, incomplete, was changed after the export, is not the one that is pinned, or
            cannot be downloaded.
        ConfigurationError: a precision, device or tower is unknown or not in the bundle, a value is out of range, or
            there are no measured settings for `tuned`.
        BackendUnavailableError: the package or library of the device, or the client of the hub, is missing.
        DeviceError: there is not enough memory, or threads cannot be started.
    """
    options = LoadOptions(
        precision=precision,
        device=device,
        towers=towers,
        threads=threads,
        streams=streams,
        check_hashes=check_hashes,
        decode_threads=decode_threads,
        mmap=mmap,
        manifest_sha256=manifest_sha256,
        images=ImageOptions(alpha, formats, max_pixels),
        arena=arena,
        tuned=tuned,
    )
    found = find_bundle(bundle, revision)
    if found.downloaded:
        options = replace(options, check_hashes=True)
    return Model(open_parts(found.folder, options))


class Model:
    """A loaded bundle. `align_runtime.load` opens one; close it, or use it as a context manager.

    >>> import align_runtime
    >>> with align_runtime.load("build/align-tiny") as model:
    ...     images = model.embed_images(["reference/align-tiny/demo/white-star.jpg"])
    ...     texts = model.embed_texts(["a photo of a white star", "a photo of a green heart"])
    ...     best = model.logits(images, texts).argmax(axis=1)
    >>> images.shape == (1, model.info.embedding_dim), best
    (True, array([0]))

    Threads: any number of threads may call one model; nothing needs a lock. Calls share its threads, so a service with
    many clients should limit the calls that run at once (two is a good start on a CPU).

    Fork: load in the child process, not before the fork: threads and contexts of CUDA do not survive it. In a child, a
    model that was loaded before is a ConfigurationError at once; closing it does nothing.

    Pickle and copy: they carry the absolute path of the bundle and the options, and load the bundle anew.

    asyncio: calls block. Run them in a thread: ``await asyncio.to_thread(model.embed_texts, texts)``. They release the
    GIL while they compute.
    """

    def __init__(self, parts: Parts) -> None:
        self._loaded = parts
        self._info = ModelInfo.of(parts)

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_again, (self._loaded.bundle.folder, self._loaded.options)

    @property
    def _parts(self) -> Parts:
        """What calls use; ConfigurationError if the model is closed, or in a forked child."""
        self._loaded.check_open()
        return self._loaded

    def __repr__(self) -> str:
        info, name = self.info, printable(self.info.name, MAX_NAME)
        return f"<align_runtime.Model {name} {info.precision} on {info.device}, {info.embedding_dim} dimensions>"

    @property
    def info(self) -> ModelInfo:
        """Facts about the model: sizes of its inputs and outputs, temperature, precision, device, towers."""
        return self._info

    @overload
    def embed_texts(
        self, texts: Iterable[str], *, batch_size: int | None = None, on_error: Literal["raise"] = "raise"
    ) -> NDArray[np.float32]: ...

    @overload
    def embed_texts(
        self, texts: Iterable[str], *, batch_size: int | None = None, on_error: Literal["skip"]
    ) -> EmbeddedRows: ...

    def embed_texts(
        self, texts: Iterable[str], *, batch_size: int | None = None, on_error: OnError = "raise"
    ) -> NDArray[np.float32] | EmbeddedRows:
        """Embeddings of `texts`, float32 (n, dim) with unit rows in the order of the input; (0, dim) for none.

        A text with more than `info.max_length` tokens is truncated, as by the reference tokenizer.

        Args:
            batch_size: maximum number of texts in one run of the graph; None chooses it.
            on_error: ``"skip"`` returns `EmbeddedRows`: the rows of the valid texts, and the errors of the others.

        Raises:
            InputError: an item is not a valid text; `index` is its position.
            ConfigurationError: the text tower is not loaded, the model is closed, or an option is out of range.
        """
        return self._all(self.iter_embed_texts(texts, batch_size=batch_size, on_error=on_error), on_error)

    def iter_embed_texts(
        self, texts: Iterable[str], *, batch_size: int | None = None, on_error: OnError = "raise"
    ) -> Generator[EmbeddedRows, None, None]:
        """Yields the rows of `embed_texts` in parts, with constant memory for any number of texts.

        A part stands for at most 4,096 texts, which are read when it is due. An error, of a text or of `texts` itself,
        is raised after everything that came before it was yielded; with ``on_error="skip"`` a part has the errors of
        its texts, and the iteration goes on.
        """
        check_inputs(texts, "text", isinstance(texts, str | bytes))
        check_batch_size(batch_size)
        check_on_error(on_error)
        return self._parts.texts.parts(texts, batch_size, on_error)

    @overload
    def embed_images(
        self, images: Iterable[ImageInput], *, batch_size: int | None = None, on_error: Literal["raise"] = "raise"
    ) -> NDArray[np.float32]: ...

    @overload
    def embed_images(
        self, images: Iterable[ImageInput], *, batch_size: int | None = None, on_error: Literal["skip"]
    ) -> EmbeddedRows: ...

    def embed_images(
        self, images: Iterable[ImageInput], *, batch_size: int | None = None, on_error: OnError = "raise"
    ) -> NDArray[np.float32] | EmbeddedRows:
        """Embeddings of `images`, float32 (n, dim) with unit rows in the order of the input; (0, dim) for none.

        An image is a path, an encoded image (bytes, bytearray, memoryview or a binary file object), a PIL image, or a
        uint8 array (H, W, 3), (H, W, 4), (H, W, 1) or (H, W). An array (n, H, W, channels) is a list of images.

        `images` is read only a few images ahead, so a long iterator needs the memory of a few. An image is taken before
        the next one is asked for: a generator may yield one buffer, PIL image, file object or file name again and
        again. What lies in a list, tuple or array is not copied: it must not be changed while it is embedded.

        Args:
            batch_size: maximum number of images in one run of the graph; None chooses it.
            on_error: ``"skip"`` returns `EmbeddedRows`: the rows of the images that can be used, and the errors of the
                others.

        Raises:
            InputError: an image cannot be used; `index` is its position.
            ConfigurationError: the vision tower is not loaded, the model is closed, or an option is out of range.
        """
        return self._all(self.iter_embed_images(images, batch_size=batch_size, on_error=on_error), on_error)

    def iter_embed_images(
        self, images: Iterable[ImageInput], *, batch_size: int | None = None, on_error: OnError = "raise"
    ) -> Generator[EmbeddedRows, None, None]:
        """Yields the rows of `embed_images` in parts, with constant memory.

        A part stands for at most `batch_size` images; without it, for at most 8 on a CPU, and on a GPU for the largest
        batch that it is set up for. Errors are raised or skipped as in `iter_embed_texts`. To stop early, leave the
        loop, or call `close()` of what this returns: images that are being computed end, no other one starts.
        """
        check_inputs(images, "image", is_image(images))
        check_batch_size(batch_size)
        check_on_error(on_error)
        return self._parts.images.parts(images, batch_size, on_error)

    def preprocess(self, images: Iterable[ImageInput]) -> NDArray[np.uint8]:
        """Pixels of `images`, uint8 (n, height, width, 3) RGB with the size `info.image_size`.

        `embed_pixels` takes them. The towers that are loaded do not matter.

        Raises:
            InputError: an image cannot be used; `index` is its position.
            ConfigurationError: the model is closed.
        """
        check_inputs(images, "image", is_image(images))
        parts = self._parts
        rows = deque(preprocessed(images, parts.bundle.manifest.preprocessing, parts.options.images, parts.decoders))
        pixels = np.empty((len(rows), *self.info.image_size, 3), dtype=np.uint8)
        for index in range(len(pixels)):
            pixels[index] = rows.popleft()  # freed one by one: the memory of one copy, not two
        return pixels

    def embed_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings of preprocessed images: uint8 (n, height, width, 3) → float32 (n, dim).

        Raises:
            InputError: `pixels` has another dtype or shape.
            ConfigurationError: the vision tower is not loaded, or the model is closed.
        """
        height, width = self.info.image_size
        try:
            pixels = np.asarray(pixels)
        except ValueError as reason:  # lists of different lengths
            raise InputError(f"pixels are a {type(pixels).__name__} that is no array: {reason}") from None
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (height, width, 3):
            raise InputError(f"pixels are {pixels.dtype} {pixels.shape}; expected uint8 (n, {height}, {width}, 3)")
        return self._parts.images.embed_pixels(pixels)

    def cosine(self, images: ArrayLike, texts: ArrayLike) -> NDArray[np.float32]:
        """Cosines float32 (n, m) of image embeddings (n, dim) with text embeddings (m, dim).

        Raises:
            InputError: arrays of another shape, or a row that is not finite or not of unit length; `index` is its row.
        """
        return cosine(images, texts, self.info.embedding_dim)

    def logits(self, images: ArrayLike, texts: ArrayLike) -> NDArray[np.float32]:
        """Logits float32 (n, m): `cosine` divided by the temperature of the checkpoint, as in ALIGN.

        Raises:
            InputError: as in `cosine`.
            BundleError: the temperature of the bundle is so small that a logit is beyond float32.
        """
        return logits(images, texts, self.info.embedding_dim, self.info.temperature)

    def classify(
        self, images: Iterable[ImageInput], labels: Iterable[str], template: str = DEFAULT_TEMPLATE
    ) -> NDArray[np.float32]:
        """Zero-shot probabilities float32 (n, labels) of `images`; every row sums to 1.

        Args:
            template: a text with ``{}`` where the label goes.

        Raises:
            ConfigurationError: there are no labels, a label is not a str, the template has no ``{}``, or a tower is not
                loaded.
            InputError: as in `embed_images` and `embed_texts`.
        """
        texts = self.embed_texts(captions(labels, template))
        return softmax(self.logits(self.embed_images(images), texts))

    def warmup(self) -> None:
        """Runs every session once, on a GPU in every shape, so that the first real call takes no longer than others."""
        for tower in self._parts.towers:
            tower.prepare()
        if self._parts.vision is not None:
            pixels = np.zeros((1, *self.info.image_size, 3), dtype=np.uint8)
            self.embed_pixels(pixels)
            if (streams := self._parts.vision.tower.streams) > 1:
                self.embed_images(np.repeat(pixels, streams, axis=0), batch_size=1)
        if self._parts.text is not None:
            self.embed_texts([""])
            if self._parts.text.tower.streams > 1:
                self.embed_texts([""] * self._parts.text.streamed_from)

    def close(self) -> None:
        """Waits for running work and frees the towers. Any thread may close, and more than once.

        Later calls are errors; a call of another thread that runs meanwhile ends with its result or with that error.
        """
        self._loaded.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _all(self, parts: Generator[EmbeddedRows, None, None], on_error: OnError) -> NDArray[np.float32] | EmbeddedRows:
        rows = EmbeddedRows.joined(parts, self.info.embedding_dim)
        return rows if on_error == "skip" else rows.embeddings


def _load_again(bundle: Path, options: LoadOptions) -> Model:
    """What a pickled model is when it is read."""
    return Model(open_parts(bundle, options))
