"""Inputs that are the same for everyone: images and texts made from a seed."""

from __future__ import annotations

import io
import re

import numpy as np
from PIL import Image

from align_runtime.bundle import Bundle
from align_runtime.errors import BundleError, ConfigurationError
from align_runtime.json_files import read_object

JPEG_QUALITY = 90
SPECIAL_TOKENS = 2  # [CLS] and [SEP]
WORD = re.compile(r"[a-z]+")


def make_images(count: int, width: int, height: int, seed: int = 0) -> list[bytes]:
    """JPEG files of coarse coloured patches with fine noise: about as many bytes as a photograph of that size."""
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
    """Texts of as many tokens as asked for, from words that are one token each in the bundle's vocabulary."""

    def __init__(self, bundle: Bundle) -> None:
        values = read_object(bundle.path("tokenizer.json"), BundleError)
        model = values.get("model")
        vocabulary = model.get("vocab") if isinstance(model, dict) else None
        names = sorted(vocabulary) if isinstance(vocabulary, dict) else []
        self._words = [word for word in names if WORD.fullmatch(word)]
        if not self._words:
            raise BundleError(f"{bundle.folder}: tokenizer.json has no word of small letters to make texts from")
        self._limit = bundle.manifest.model.max_length

    def make(self, count: int, tokens: int, seed: int = 0) -> list[str]:
        """`count` texts of `tokens` tokens, [CLS] and [SEP] included.

        Raises:
            ConfigurationError: fewer tokens than these two, or more than the model takes.
        """
        if not SPECIAL_TOKENS <= tokens <= self._limit:
            raise ConfigurationError(
                f"a text of {tokens} tokens was asked for; {SPECIAL_TOKENS} to {self._limit} exist"
            )
        chosen = np.random.default_rng(seed).integers(0, len(self._words), (count, tokens - SPECIAL_TOKENS))
        return [" ".join(self._words[index] for index in row) for row in chosen]
