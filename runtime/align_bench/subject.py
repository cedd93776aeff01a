"""A bundle, opened to be measured: the work of every stage, on inputs that are made once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_bench.record import END_TO_END, Case
from align_bench.workload import TextMaker, make_images
from align_runtime.backends.runner import COMPUTE
from align_runtime.bundle import Bundle
from align_runtime.images import decode, fit
from align_runtime.loading import Parts, open_parts
from align_runtime.model import Model
from align_runtime.tower import Tower

Work = Callable[[], object]


@dataclass(frozen=True)
class Subject:
    """A loaded model with the parts that it is made of."""

    bundle: Bundle
    parts: Parts
    model: Model

    def tower(self, name: str) -> Tower:
        """The tower called ``"vision"`` or ``"text"``."""
        return self.parts.images.tower if name == "vision" else self.parts.texts.tower

    def inputs(self, case: Case) -> list[Any]:
        """What a user would pass for `case`: bytes of JPEG files, or texts."""
        if case.tower == "vision":
            width, height = image_size(case.size)
            return make_images(case.batch, width, height)
        return TextMaker(self.bundle).make(case.batch, int(case.size))

    def embed(self, tower: str, inputs: Iterable[Any]) -> NDArray[np.float32]:
        """The call that a user makes."""
        return self.model.embed_images(inputs) if tower == "vision" else self.model.embed_texts(inputs)

    def pixels(self, images: list[bytes]) -> NDArray[np.uint8]:
        """Preprocessed images, uint8 (n, height, width, 3)."""
        return np.stack([fit(decode(image), self.parts.images.preprocessing) for image in images])

    def tensors(self, case: Case, inputs: list[Any]) -> dict[str, NDArray[Any]]:
        """What the graph gets of `inputs`."""
        if case.tower == "vision":
            preprocessing, (tensor,) = self.parts.images.preprocessing, self.parts.images.tower.graph.inputs
            pixels = self.pixels(inputs)
            return {tensor.name: pixels if tensor.name == "pixels" else preprocessing.normalize(pixels)}
        input_ids, attention_mask = self.parts.texts.tokenizer.pad(self.parts.texts.tokenizer.encode(inputs))
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def stages(self, case: Case) -> dict[str, Work]:
        """What is done for a batch of `case`, stage by stage, and at last the whole call."""
        inputs = self.inputs(case)
        tensors, works = self.tensors(case, inputs), dict[str, Work]()
        if case.tower == "vision":
            preprocessing = self.parts.images.preprocessing
            decoded = [decode(image) for image in inputs]
            works["decode"] = lambda: [decode(image) for image in inputs]
            works["preprocess"] = lambda: [fit(image, preprocessing) for image in decoded]
        else:
            tokenizer = self.parts.texts.tokenizer
            works["tokenise"] = lambda: tokenizer.pad(tokenizer.encode(inputs))
        works[COMPUTE] = lambda: self.tower(case.tower).run(tensors)
        works[END_TO_END] = lambda: self.embed(case.tower, inputs)
        return works


@contextmanager
def opened(
    bundle: Bundle, precision: str, device: str, threads: int | None = None, streams: int | None = None
) -> Iterator[Subject]:
    """`bundle` loaded as `align_runtime.load` does it; closed when the block ends."""
    parts = open_parts(bundle.folder, precision=precision, device=device, threads=threads, streams=streams)
    with Model(parts) as model:
        yield Subject(bundle, parts, model)


def image_size(text: str) -> tuple[int, int]:
    """Width and height of ``"640x480"``; both were checked when the case was planned."""
    width, height = text.split("x")
    return int(width), int(height)
