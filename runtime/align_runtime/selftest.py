"""A bundle tests itself: golden inputs through its own preprocessing, tokenizer and graphs, against the reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from align_runtime.backends import open_runner
from align_runtime.bundle import Bundle
from align_runtime.errors import ParityError
from align_runtime.golden import Golden
from align_runtime.images import preprocess
from align_runtime.manifest import Graph, Manifest
from align_runtime.parity import Limits, Parity, compare
from align_runtime.tokenizer import Tokenizer


@dataclass(frozen=True)
class GraphCheck:
    """One graph against the reference's embeddings. `failure` says what is wrong, None when all is well."""

    tower: str
    variant: str
    target: str
    parity: Parity
    limits: Limits
    failure: str | None


def check_inputs(bundle: Bundle, expected: Golden) -> Iterator[str]:
    """Differences between this machine's preprocessing and tokenizer and the reference's: none when all is well."""
    facts = bundle.manifest.model
    tokenizer = Tokenizer.from_file(bundle.check_hash("tokenizer.json"), facts.max_length, facts.pad_token_id)
    input_ids, attention_mask = tokenizer.pad(tokenizer.encode(expected.texts), expected.input_ids.shape[1])
    differ = (input_ids != expected.input_ids).any(axis=1) | (attention_mask != expected.attention_mask).any(axis=1)
    for text, differs in zip(expected.texts, differ, strict=True):
        if differs:
            yield f"the tokens of {text!r} differ from the reference's"
    pixels = preprocess(expected.pictures, bundle.manifest.preprocessing)
    for picture, here, there in zip(expected.pictures, pixels, expected.pixels, strict=True):
        share = float((here != there).mean())
        if share:
            yield f"the pixels of {picture.name} differ from the reference's in {share:.2%} of the values"


def check_graph(bundle: Bundle, graph: Graph, expected: Golden, device: str, threads: int | None) -> GraphCheck:
    """Runs `graph` on the golden inputs and compares with the golden embeddings."""
    file, *_ = [bundle.check_hash(name) for name in graph.files]
    runner = open_runner(file, device, threads)
    try:
        actual = runner.run(graph_inputs(graph, bundle.manifest, expected))
    finally:
        runner.close()
    if graph.tower == "text":
        parity = compare(actual, expected.text_embeds, [repr(text) for text in expected.texts])
    else:
        parity = compare(actual, expected.image_embeds, [picture.name for picture in expected.pictures])
    try:
        parity.check(graph.file, graph.limits)
        failure = None
    except ParityError as error:
        failure = str(error)
    return GraphCheck(graph.tower, graph.variant, graph.target, parity, graph.limits, failure)


def graph_inputs(graph: Graph, manifest: Manifest, expected: Golden) -> dict[str, NDArray[Any]]:
    """The golden inputs under the names and in the form that `graph` takes."""
    if graph.tower == "text":
        return {"input_ids": expected.input_ids, "attention_mask": expected.attention_mask}
    if graph.inputs[0].name == "pixels":
        return {"pixels": expected.pixels}
    return {graph.inputs[0].name: manifest.preprocessing.normalize(expected.pixels)}
