"""The bundle under test: a loaded model, reproducible inputs, and each stage of a call as a function to be timed."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from align_bench.record import DECODE, END_TO_END, PREPROCESS, TOKENIZE, Case
from align_runtime.backends.runner import COMPUTE
from align_runtime.bundle import Bundle
from align_runtime.errors import BundleError, ConfigurationError
from align_runtime.images import decode, fit
from align_runtime.json_files import read_object
from align_runtime.load_options import LoadOptions
from align_runtime.loading import Parts, open_parts
from align_runtime.model import Model
from align_runtime.tower import Tower

JPEG_QUALITY = 90
SPECIAL_TOKENS = 2  # [CLS] and [SEP]
WORD = re.compile(r"[a-z]+")
Work = Callable[[], object]


@dataclass(frozen=True)
class Subject:
    """A loaded model and its parts."""

    bundle: Bundle
    parts: Parts
    model: Model

    def tower(self, name: str) -> Tower:
        """The tower called ``"vision"`` or ``"text"``."""
        return self.parts.images.tower if name == "vision" else self.parts.texts.tower

    def inputs(self, case: Case) -> list[Any]:
        """What a user would pass for `case`: the bytes of JPEG files, or texts."""
        if case.tower == "vision":
            width, height = image_size(case.size)
            return make_images(case.batch, width, height)
        return TextMaker(self.bundle).make(case.batch, int(case.size))

    def embed(self, tower: str, inputs: Iterable[Any]) -> NDArray[np.float32]:
        """Embeddings from the public API, float32 (n, dim)."""
        return self.model.embed_images(inputs) if tower == "vision" else self.model.embed_texts(inputs)

    def pixels(self, images: list[bytes]) -> NDArray[np.uint8]:
        """Preprocessed images, uint8 (n, height, width, 3)."""
        embedder = self.parts.images
        return np.stack([fit(decode(image, embedder.options), embedder.preprocessing) for image in images])

    def tensors(self, case: Case, inputs: list[Any]) -> dict[str, NDArray[Any]]:
        """The inputs of the graph, by name."""
        if case.tower == "vision":
            preprocessing, (tensor,) = self.parts.images.preprocessing, self.parts.images.tower.graph.inputs
            pixels = self.pixels(inputs)
            return {tensor.name: pixels if tensor.name == "pixels" else preprocessing.normalize(pixels)}
        input_ids, attention_mask = self.parts.texts.tokenizer.pad(self.parts.texts.tokenizer.encode(inputs))
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def stages(self, case: Case) -> dict[str, Work]:
        """The work of each stage on a batch of `case`, in order; the last entry, `END_TO_END`, is the whole call."""
        inputs = self.inputs(case)
        tensors, works = self.tensors(case, inputs), dict[str, Work]()
        if case.tower == "vision":
            preprocessing, options = self.parts.images.preprocessing, self.parts.images.options
            decoded = [decode(image, options) for image in inputs]
            works[DECODE] = lambda: [decode(image, options) for image in inputs]
            works[PREPROCESS] = lambda: [fit(image, preprocessing) for image in decoded]
        else:
            tokenizer = self.parts.texts.tokenizer
            works[TOKENIZE] = lambda: tokenizer.pad(tokenizer.encode(inputs))
        works[COMPUTE] = lambda: self.tower(case.tower).run(tensors)
        works[END_TO_END] = lambda: self.embed(case.tower, inputs)
        return works


@contextmanager
def opened(
    bundle: Bundle, precision: str, device: str, threads: int | None = None, streams: int | None = None
) -> Iterator[Subject]:
    """`bundle` loaded as `align_runtime.load` loads it; closed at the end of the block."""
    options = LoadOptions(precision=precision, device=device, threads=threads, streams=streams)
    parts = open_parts(bundle.folder, options)
    with Model(parts) as model:
        yield Subject(bundle, parts, model)


def image_size(text: str) -> tuple[int, int]:
    """Width and height of ``"640x480"``; the plan has checked the format."""
    width, height = text.split("x")
    return int(width), int(height)


def make_images(count: int, width: int, height: int, seed: int = 0) -> list[bytes]:
    """JPEG files of coarse coloured patches with fine noise, about as large in bytes as photographs of that size."""
    random = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = (smooth + random.integers(-12, 13, (height, width, 1))).clip(0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(noisy).save(file, "JPEG", quality=JPEG_QUALITY)
        images.append(file.getvalue())
    return images


class TextMaker:
    """Makes texts with a given number of tokens, from words that are a single token in the bundle's vocabulary.

    Raises:
        BundleError: the vocabulary has no word of lower-case letters.
    """

    def __init__(self, bundle: Bundle) -> None:
        values = read_object(bundle.path("tokenizer.json"), BundleError)
        model = values.get("model")
        vocabulary = model.get("vocab") if isinstance(model, dict) else None
        names = sorted(vocabulary) if isinstance(vocabulary, dict) else []
        self._words = [word for word in names if WORD.fullmatch(word)]
        if not self._words:
            raise BundleError(f"{bundle.folder}: tokenizer.json has no lower-case word to make texts from")
        self._limit = bundle.manifest.model.max_length

    def make(self, count: int, tokens: int, seed: int = 0) -> list[str]:
        """`count` texts of `tokens` tokens, [CLS] and [SEP] included.

        Raises:
            ConfigurationError: fewer than two tokens, or more than the model takes.
        """
        check_length(tokens, self._limit)
        chosen = np.random.default_rng(seed).integers(0, len(self._words), (count, tokens - SPECIAL_TOKENS))
        return [" ".join(self._words[index] for index in row) for row in chosen]


def check_length(tokens: int, limit: int) -> None:
    """Raises ConfigurationError unless a text can have `tokens` tokens in a model that takes `limit`."""
    if not SPECIAL_TOKENS <= tokens <= limit:
        raise ConfigurationError(f"expected a text length of {SPECIAL_TOKENS} to {limit} tokens, got {tokens}")
