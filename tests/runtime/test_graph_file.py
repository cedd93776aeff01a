"""What an ONNX file of a bundle may hold, by a walk that reads no values."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from align_runtime.bundle import Bundle
from align_runtime.errors import BundleError
from align_runtime.graph_file import MAX_FIELDS, check_graph_bytes, check_graph_file
from support.onnx_models import half_model, model, weight

DATA = "weights.onnx_data"


def external(*locations: str) -> onnx.TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for location in locations:
        tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="offset", value="0")
    return tensor


def in_constant(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return model([helper.make_node("Constant", [], ["c"], value=tensor)])


def check(made: onnx.ModelProto | bytes, data: str | None = DATA) -> None:
    check_graph_bytes(made if isinstance(made, bytes) else made.SerializeToString(), "graph.onnx", data)


def refused(made: onnx.ModelProto | bytes, data: str | None = DATA) -> str:
    with pytest.raises(BundleError) as caught:
        check(made, data)
    return str(caught.value)


@pytest.mark.parametrize("fixture", ["tiny_bundle", "tiny_fp16_bundle", "tiny_int8_bundle"])
def test_every_graph_that_is_exported_passes(fixture: str, request: pytest.FixtureRequest) -> None:
    bundle = Bundle.open(request.getfixturevalue(fixture))
    for graph in bundle.manifest.graphs:
        assert bundle.graph_file(graph).name == Path(graph.file).name


def test_weights_in_the_listed_file_pass() -> None:
    check(model([], weights=[external(DATA)]))
    check(half_model(), None)


@pytest.mark.parametrize(
    "location", ["other", "../weights.onnx_data", "./weights.onnx_data", "/etc/passwd", "", "*/_ORT_MEM_ADDR_/*"]
)
@pytest.mark.parametrize("place", ["initializer", "constant", "list"])
def test_weights_elsewhere_are_refused(place: str, location: str) -> None:
    tensor = external(location)
    made = {
        "initializer": lambda: model([], weights=[external(DATA), tensor]),
        "constant": lambda: in_constant(tensor),
        "list": lambda: model([helper.make_node("Constant", [], ["c"], values=[tensor])]),
    }[place]()
    assert f"graph.onnx has weights in {location.encode()!r}, but the manifest lists {DATA}" in refused(made)


def test_weights_in_a_file_that_the_manifest_does_not_name() -> None:
    assert "b'weights.onnx_data', but the manifest lists no file of weights" in refused(
        model([], weights=[external(DATA)]), None
    )


def test_of_several_locations_each_counts() -> None:
    """Parsers take the last one."""
    assert "b'elsewhere'" in refused(model([], weights=[external("elsewhere", DATA)]))
    assert "b'elsewhere'" in refused(model([], weights=[external(DATA, "elsewhere")]))
    entry = b"\x0a\x08location" + b"\x12\x09elsewhere" + b"\x12\x11" + DATA.encode()
    tensor = b"\x6a" + bytes([len(entry)]) + entry
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    assert "b'elsewhere'" in refused(b"\x3a" + bytes([len(graph)]) + graph)
    no_value = b"\x0a\x08location"
    tensor = b"\x6a" + bytes([len(no_value)]) + no_value
    assert "has weights in b''" in refused(b"\x3a" + bytes([len(tensor) + 2]) + b"\x2a" + bytes([len(tensor)]) + tensor)


def subgraph() -> onnx.ModelProto:
    body = helper.make_graph([], "body", [], [], initializer=[external("elsewhere")])
    return model([helper.make_node("Loop", ["n", "c"], ["y"], body=body)])


def function() -> onnx.ModelProto:
    made = model([])
    made.functions.add(name="F", domain="own")
    return made


def sparse() -> onnx.ModelProto:
    made = model([])
    made.graph.sparse_initializer.add().values.CopyFrom(weight("w", [1]))
    return made


def training() -> onnx.ModelProto:
    made = model([])
    made.training_info.add()
    return made


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (subgraph, "subgraphs (If, Loop, Scan)"),
        (function, "functions"),
        (sparse, "sparse weights"),
        (training, "training information"),
        (lambda: model([helper.make_node("EPContext", [], ["y"], domain="com.microsoft")]), "domain b'com.microsoft'"),
    ],
)
def test_what_else_is_refused(make: Callable[[], onnx.ModelProto], words: str) -> None:
    assert words in refused(make())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x3a\x05\x0a", "ends within a field"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "does not end"),
        (b"\x3b", "wire type 3"),
        (b"\x38\x01", "field 7 of a model has wire type 0"),
        (b"\xba\x3e\x00", "field 999 in a model"),
        (b"\x08\x07\x12\x00ORTM", "ONNX Runtime's own format"),
        (b"\x08", "does not end"),
        (b"\x08\x01" * (MAX_FIELDS + 1), "more than 1000000 fields"),
    ],
)
def test_bytes_that_are_no_graph_as_we_write_it(content: bytes, words: str) -> None:
    if words.startswith("ONNX Runtime"):
        content = b"\x08\x07\x00\x00ORTM"
    assert words in refused(content)


def test_a_file_that_is_empty_or_none(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match="is empty"):
        check_graph_file(tmp_path / "empty.onnx", None)
    with pytest.raises(BundleError, match="is not a regular file"):
        check_graph_file(tmp_path, None)


def test_values_are_not_read(tmp_path: Path) -> None:
    """A graph of 4 GiB, nearly all of it a hole in the file that one weight claims."""
    size = 1 << 32
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[size // 4]).SerializeToString()
    field = b"\x4a" + _varint(size)  # raw_data
    inside = b"\x2a" + _varint(len(tensor) + len(field) + size) + tensor + field
    head = b"\x3a" + _varint(len(inside) + size) + inside
    file = tmp_path / "large.onnx"
    with file.open("wb") as opened:
        opened.write(head)
        opened.truncate(len(head) + size)
    start = time.process_time()
    check_graph_file(file, None)
    assert time.process_time() - start < 1


def _varint(value: int) -> bytes:
    out = io.BytesIO()
    while value >= 0x80:
        out.write(bytes([value & 0x7F | 0x80]))
        value >>= 7
    out.write(bytes([value]))
    return out.getvalue()


def test_random_damage_gives_an_error_of_ours_or_passes() -> None:
    content = bytearray(
        model([], weights=[external(DATA), numpy_helper.from_array(np.arange(9.0), "a")]).SerializeToString()
    )
    random = np.random.default_rng(0)
    for _ in range(2000):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 3):
            damaged[place] = int(random.integers(0, 256))
        with suppress(BundleError):
            check(bytes(damaged))
