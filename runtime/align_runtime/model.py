"""The model that a service holds: texts and pictures in, unit-length embeddings out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from align_runtime.backends import Runner
from align_runtime.bundle import Bundle
from align_runtime.errors import AlignError, BundleError, ConfigurationError, InputError
from align_runtime.graph_entry import Graph
from align_runtime.images import ImageInput, preprocess
from align_runtime.manifest import ModelFacts
from align_runtime.opening import open_graph
from align_runtime.tokenizer import Tokenizer

T = TypeVar("T")

TEXT_BATCH = 32
IMAGE_BATCH = 8
DEFAULT_TEMPLATE = "a photo of a {}"


def load(
    bundle: str | os.PathLike[str],
    precision: str = "fp32",
    device: str = "cpu",
    threads: int | None = None,
    check_hashes: bool = False,
) -> Model:
    """Opens a bundle.

    Args:
        bundle: the folder that ``align-export`` wrote.
        precision: the variant to run, as listed in the bundle.
        device: where to run it: ``"cpu"``; ``"cuda"``, an NVIDIA GPU through ONNX Runtime; ``"tensorrt"``, an engine of
            the bundle that was built for it. A device that cannot be had is an error, never another device.
        threads: of one call on the CPU, all cores when None.
        check_hashes: read every byte of the files used and compare their sha256 with the manifest; sizes are always
            compared.

    Raises:
        BundleError: the bundle is missing or damaged.
        ConfigurationError: a precision or device that is not known or not in the bundle.
        BackendUnavailableError: the device's package or library is missing.
    """
    opened = Bundle.open(bundle)
    graphs = {tower: opened.graph(tower, precision, device) for tower in ("vision", "text")}
    runners: dict[str, Runner] = {}
    try:
        for tower, graph in graphs.items():
            runners[tower] = open_graph(opened, graph, device, threads, check_hashes)
        facts = opened.manifest.model
        tokenizer = Tokenizer.from_file(opened.check_hash("tokenizer.json"), facts.max_length, facts.pad_token_id)
    except AlignError:
        for runner in runners.values():
            runner.close()
        raise
    return Model(opened, graphs, runners, tokenizer)


class Model:
    """A loaded bundle. One model may be used from many threads; close it, or use it as a context manager."""

    def __init__(
        self, bundle: Bundle, graphs: dict[str, Graph], runners: dict[str, Runner], tokenizer: Tokenizer
    ) -> None:
        self._bundle = bundle
        self._graphs = graphs
        self._runners = runners
        self._tokenizer = tokenizer

    def __repr__(self) -> str:
        facts, variant = self.facts, self._graphs["text"].variant
        return (
            f"<align_runtime.Model {self._bundle.manifest.provenance.name} {variant}, {facts.embedding_dim} dimensions>"
        )

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
        if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
            raise InputError(f"embed_text takes a list of texts, not a {_kind(texts)}; put one text into a list")
        rows = self._tokenizer.encode(list(texts))
        result = np.empty((len(rows), self.facts.embedding_dim), dtype=np.float32)
        # Texts of like length side by side: a batch is padded to its longest, and padding costs as much as text.
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        for chosen in _batches(order, TEXT_BATCH):
            input_ids, attention_mask = self._tokenizer.pad([rows[index] for index in chosen])
            result[chosen] = self._run("text", {"input_ids": input_ids, "attention_mask": attention_mask})
        return result

    def embed_images(self, images: Iterable[ImageInput]) -> NDArray[np.float32]:
        """Embeddings of `images`, float32 (n, dim), unit rows in the order of the input; (0, dim) for none.

        An image is a path, the bytes of a picture file, a PIL image, or a uint8 array (H, W, 3), (H, W, 4), (H, W, 1)
        or (H, W); an array (n, H, W, channels) is a list of them. An iterator is read batch by batch, so a long stream
        of pictures needs the memory of one batch.

        Raises:
            InputError: a picture that cannot be read, with its place in the input.
        """
        single = isinstance(images, str | bytes | bytearray | os.PathLike | Image.Image)
        if isinstance(images, np.ndarray):
            single = images.ndim in (2, 3)  # its rows would pass for grey pictures
        if single or not isinstance(images, Iterable):
            raise InputError(f"embed_images takes a list of images, not a {_kind(images)}; put one image into a list")
        parts = [np.empty((0, self.facts.embedding_dim), dtype=np.float32)]
        done = 0
        for batch in _batches(images, IMAGE_BATCH):
            try:
                pixels = preprocess(batch, self._bundle.manifest.preprocessing)
            except InputError as error:
                raise error.shifted(done) from None
            parts.append(self.embed_pixels(pixels))
            done += len(batch)
        return np.concatenate(parts)

    def embed_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings of preprocessed pictures: uint8 (n, height, width, 3) → float32 (n, dim). Run as one batch.

        Raises:
            InputError: an array of another type or size.
        """
        height, width = self._bundle.manifest.preprocessing.output_size
        pixels = np.asarray(pixels)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (height, width, 3):
            raise InputError(f"pixels are {pixels.dtype} {pixels.shape}; uint8 (n, {height}, {width}, 3) is needed")
        (tensor,) = self._graphs["vision"].inputs
        if tensor.name == "pixels":
            return self._run("vision", {"pixels": pixels})
        return self._run("vision", {tensor.name: self._bundle.manifest.preprocessing.normalize(pixels)})

    def similarity(self, images: ArrayLike, texts: ArrayLike) -> NDArray[np.float32]:
        """Logits float32 (n, m) of image embeddings (n, dim) against text embeddings (m, dim).

        As in ALIGN: the cosine divided by the checkpoint's temperature.

        Raises:
            InputError: arrays of another shape, or with NaN or infinite values.
        """
        rows, columns = self._embeddings("images", images), self._embeddings("texts", texts)
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
        if not isinstance(template, str) or "{}" not in template:
            raise ConfigurationError(f"the template is {template!r}; it needs {{}} where the label goes")
        texts = self.embed_text(_captions(labels, template))
        logits = self.similarity(self.embed_images(images), texts)
        scores = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
        return scores / scores.sum(axis=1, keepdims=True)

    def warmup(self) -> None:
        """Runs both towers once, on a GPU in every shape that it runs in, so that no real call pays for what is set up
        on first use."""
        for runner in self._runners.values():
            runner.prepare()
        self.embed_text([""])
        self.embed_pixels(np.zeros((1, *self._bundle.manifest.preprocessing.output_size, 3), dtype=np.uint8))

    def close(self) -> None:
        """Frees both towers. Embedding afterwards is an error; closing twice is not."""
        runners, self._runners = self._runners, {}
        for runner in runners.values():
            runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _embeddings(self, name: str, values: ArrayLike) -> NDArray[np.float32]:
        try:
            embeds = np.asarray(values, dtype=np.float32)
        except (TypeError, ValueError):
            raise InputError(f"{name} is a {_kind(values)} of something else than numbers; pass embeddings") from None
        if embeds.ndim != 2 or embeds.shape[1] != self.facts.embedding_dim:
            raise InputError(f"{name} has shape {embeds.shape}; (n, {self.facts.embedding_dim}) is needed")
        if not np.isfinite(embeds).all():
            raise InputError(f"{name} holds NaN or infinite values; embeddings are finite")
        return embeds

    def _run(self, tower: str, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        runner = self._runners.get(tower)
        if runner is None:
            raise ConfigurationError("the model is closed; load the bundle again")
        embeds = runner.run(inputs)
        if embeds.shape[1:] != (self.facts.embedding_dim,):
            raise BundleError(
                f"{self._bundle.folder}: the {tower} graph gives an array of shape {embeds.shape}, the manifest says "
                f"embeddings of {self.facts.embedding_dim} numbers; it is not the graph of this bundle"
            )
        return embeds


def _captions(labels: Iterable[str], template: str) -> list[str]:
    if isinstance(labels, str | bytes) or not isinstance(labels, Iterable):
        raise ConfigurationError(f"labels is a {_kind(labels)}; give a list of labels")
    names = list(labels)
    if not names:
        raise ConfigurationError("there are no labels to choose from; give at least one")
    for name in names:
        if not isinstance(name, str):
            raise ConfigurationError(f"a label cannot be a {_kind(name)} ({name!r}); pass a str")
    return [template.replace("{}", name) for name in names]


def _kind(value: object) -> str:
    return type(value).__name__


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
