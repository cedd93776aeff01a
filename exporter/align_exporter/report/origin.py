"""The last parts of the page: how long the build took, what it was made from, and how to check it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from align_bench.page.components import code, facts, section, table
from align_bench.page.markup import Markup, element
from align_exporter.report import figures
from align_exporter.report.charts import bar
from align_exporter.report.record import BuildRecord
from align_exporter.report.sample_section import own_samples
from align_runtime.preprocessing import RESAMPLING, ImagePreprocessing


def phases(record: BuildRecord) -> Markup:
    """The steps of the build and their times."""
    longest = max((phase.seconds for phase in record.phases), default=0.0)
    rows = [
        (phase.title, bar(phase.seconds, longest, f"{phase.seconds:.3f} s"), figures.duration(phase.seconds))
        for phase in record.phases
    ]
    total = figures.duration(sum(phase.seconds for phase in record.phases))
    return section("phases", "Phases", table(f"{total} in all", ["Phase", "Relative", "Time"], rows, numbers=(2,)))


def provenance(record: BuildRecord) -> Markup:
    """The checkpoint's files, the options, the tools and the machine; what the model takes."""
    source = record.provenance
    files = [(code(name), code(sha256)) for name, sha256 in source.files.items()]
    return section(
        "provenance",
        "Made from what",
        facts([("Checkpoint", source.name), ("Revision", source.revision or "none, a local folder")]),
        table("Files that were read", ["File", "SHA-256"], files),
        *own_samples(record.samples),
        element("h3", "Model"),
        facts(_model(record)),
        element("h3", "Preprocessing of images"),
        facts(_preprocessing(record.preprocessing)),
        element("h3", "Options"),
        facts(_options(source.options)),
        element("h3", "Tools"),
        facts(source.tools.items()),
        element("h3", "Machine"),
        facts(record.machine.items()),
    )


def _model(record: BuildRecord) -> list[tuple[str, str]]:
    model = record.model
    return [
        ("Embedding", f"{model.embedding_dim} numbers of unit length"),
        ("Temperature", f"{model.temperature:.6g}"),
        (
            "Text",
            f"up to {model.max_length} tokens of a vocabulary of {model.vocab_size}, padded with {model.pad_token_id}",
        ),
    ]


def _preprocessing(steps: ImagePreprocessing) -> list[tuple[str, str]]:
    height, width = steps.output_size
    size = "no" if steps.size is None else ", ".join(f"{key} {value}" for key, value in steps.size.to_json().items())
    sampling = "" if steps.resample is None else f" ({RESAMPLING[steps.resample]})"
    return [
        ("Resize", f"{size}{sampling}"),
        ("Centre crop", "no" if steps.crop_size is None else f"{steps.crop_size[0]} × {steps.crop_size[1]}"),
        ("Rescale", _rescaling(steps)),
        ("Mean", _triple(steps.image_mean)),
        ("Standard deviation", _triple(steps.image_std)),
        ("Divided by it once more", "yes" if steps.include_top else "no"),
        ("Result", f"{height} × {width} pixels"),
    ]


def _rescaling(steps: ImagePreprocessing) -> str:
    if steps.rescale_factor is None:
        return "no"
    return f"× {steps.rescale_factor!r}{' − 1' if steps.rescale_offset else ''}"


def _triple(values: tuple[float, float, float] | None) -> str:
    return "none" if values is None else ", ".join(f"{value:g}" for value in values)


def _options(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in options.items()]


def check_again() -> Markup:
    """The commands that repeat what the page says."""
    command = code("align-verify .")
    return section(
        "check",
        "Check it again",
        element(
            "p",
            "In the folder that holds this page, ",
            command,
            " hashes every file and runs every graph on the samples in ",
            code("golden/"),
            ", through the bundle's own preprocessing and tokenizer, against the embeddings "
            "of the PyTorch reference. It needs no PyTorch: ",
            code("pip install 'align-onnx[cpu]'"),
            ".",
        ),
        element(
            "p",
            code("align-inspect ."),
            " prints what is in the manifest. The numbers of this page are in ",
            element("a", "report.json", href="report.json"),
            ", the manifest is ",
            element("a", "align.json", href="align.json"),
            ".",
        ),
    )
