"""A bundle tests itself: golden inputs through its own preprocessing, tokenizer and graphs, against the reference;
and what its graphs compute in, against what the manifest says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from align_runtime.backends import open_graph
from align_runtime.bundle import Bundle
from align_runtime.errors import ParityError, PrecisionError
from align_runtime.golden import Golden
from align_runtime.graph_entry import Graph
from align_runtime.images import preprocess
from align_runtime.manifest import Manifest
from align_runtime.parity import Limits, Parity, compare
from align_runtime.precision import GraphContent, check_precision, content_of
from align_runtime.tokenizer import Tokenizer


@dataclass(frozen=True)
class GraphCheck:
    """One graph against the reference's embeddings and its own description.

    Attributes:
        parity, limits: distance from the reference, measured here, and what is allowed.
        content: counted here, in the file.
        failures: what is wrong; empty when all is well.
    """

    tower: str
    variant: str
    target: str
    parity: Parity
    limits: Limits
    content: GraphContent
    failures: tuple[str, ...]


def check_inputs(bundle: Bundle, expected: Golden) -> Iterator[str]:
    """Differences between this machine's preprocessing and tokenizer and the reference's: none when all is well."""
    facts = bundle.manifest.model
    tokenizer = Tokenizer.from_file(bundle.check_hash("tokenizer.json"), facts.max_length, facts.pad_token_id)
    input_ids, attention_mask = tokenizer.pad(tokenizer.encode(expected.texts), expected.input_ids.shape[1])
    differ = (input_ids != expected.input_ids).any(axis=1) | (attention_mask != expected.attention_mask).any(axis=1)
    for text, differs in zip(expected.texts, differ, strict=True):
        if differs:
            yield f"the tokens of {text!r} differ from the reference's"
    pixels = preprocess(expected.images, bundle.manifest.preprocessing)
    for image, here, there in zip(expected.images, pixels, expected.pixels, strict=True):
        share = float((here != there).mean())
        if share:
            yield f"the pixels of {image.name} differ from the reference's in {share:.2%} of the values"


def check_graph(bundle: Bundle, graph: Graph, expected: Golden, device: str, threads: int | None) -> GraphCheck:
    """Counts what `graph` computes in, runs it on the golden inputs and compares with the golden embeddings.

    Raises:
        BundleError: a file with another hash, or a graph that cannot be counted or loaded.
    """
    file, *_ = [bundle.check_hash(name) for name in graph.files]
    content = content_of(file, bundle.manifest.model.max_length)
    runner = open_graph(bundle, graph, device, threads, check_hashes=False)
    try:
        actual = runner.run(graph_inputs(graph, bundle.manifest, expected))
    finally:
        runner.close()
    if graph.tower == "text":
        parity = compare(actual, expected.text_embeds, [repr(text) for text in expected.texts])
    else:
        parity = compare(actual, expected.image_embeds, [image.name for image in expected.images])
    failures = tuple(_failures(graph, parity, content))
    return GraphCheck(graph.tower, graph.variant, graph.target, parity, graph.limits, content, failures)


def _failures(graph: Graph, parity: Parity, content: GraphContent) -> Iterator[str]:
    try:
        parity.check(graph.file, graph.limits)
    except ParityError as error:
        yield str(error)
    for kind in ("macs", "weights"):
        found, said = getattr(content, kind), getattr(graph.content, kind)
        if found != said:
            yield (
                f"{graph.file} has {kind} {dict(found)}, the manifest says {dict(said)}; "
                "one of them was changed after the export"
            )
    try:
        check_precision(graph.file, graph.variant, content)
    except PrecisionError as error:
        yield str(error)


def graph_inputs(graph: Graph, manifest: Manifest, expected: Golden) -> dict[str, NDArray[Any]]:
    """The golden inputs under the names and in the form that `graph` takes."""
    if graph.tower == "text":
        return {"input_ids": expected.input_ids, "attention_mask": expected.attention_mask}
    if graph.inputs[0].name == "pixels":
        return {"pixels": expected.pixels}
    return {graph.inputs[0].name: manifest.preprocessing.normalize(expected.pixels)}
