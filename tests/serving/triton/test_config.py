"""``config.pbtxt`` as Triton reads it: parsed by its own protobuf, compared with the graphs themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from align_runtime import Bundle, golden
from align_runtime.graph_entry import TOWERS
from align_serving.triton.command import MAKERS
from align_serving.triton.model_config import ModelConfig
from align_serving.triton.options import BACKENDS, ServingOptions
from align_serving.triton.served_model import ServedModel

model_config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
text_format = pytest.importorskip("google.protobuf.text_format")
ONNX_TYPES = {"TYPE_UINT8": "UINT8", "TYPE_INT64": "INT64", "TYPE_FP32": "FLOAT"}
CPU, GPU = 2, 1  # KIND_CPU, KIND_GPU of ModelInstanceGroup


def parsed(config: ModelConfig) -> Any:
    """`config` as a ``ModelConfig``; an unknown field or a wrong type is an error."""
    return text_format.Parse(config.text(), model_config_pb2.ModelConfig())


def served(folder: Path, tower: str, options: ServingOptions) -> ServedModel:
    bundle = Bundle.open(folder)
    return MAKERS[options.backend](bundle, tower, options, golden.read(bundle))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("tower", TOWERS)
def test_names_types_and_shapes_are_those_of_the_graph(tiny_fp16_bundle: Path, tower: str, device: str) -> None:
    options = ServingOptions(backend="onnxruntime", device=device, precision="fp32" if device == "cpu" else "fp16")
    model = served(tiny_fp16_bundle, tower, options)
    config = parsed(model.config)
    graph = onnx.load(tiny_fp16_bundle / model.graph.file, load_external_data=False).graph
    for given, values in ((config.input, graph.input), (config.output, graph.output)):
        described = [(entry.name, ONNX_TYPES[model_config_pb2.DataType.Name(entry.data_type)], list(entry.dims))
                     for entry in given]  # fmt: skip
        assert described == [(value.name, element_type(value), sizes(value)[1:]) for value in values]
    assert (config.name, config.backend) == (f"align_{tower}_tower", "onnxruntime")
    assert [group.kind for group in config.instance_group] == [CPU if device == "cpu" else GPU]


def element_type(value: Any) -> str:
    return onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)


def sizes(value: Any) -> list[int]:
    return [size.dim_value or -1 for size in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("tower", TOWERS)
def test_string_models(tiny_bundle: Path, tower: str) -> None:
    config = parsed(served(tiny_bundle, tower, ServingOptions(instances=3, queue_delay=500, queue_size=7)).config)
    (given,), (embedding, error) = config.input, config.output
    assert (given.name, list(given.dims)) == ({"text": "TEXT", "vision": "IMAGE"}[tower], [1])
    assert given.data_type == error.data_type == model_config_pb2.TYPE_STRING
    assert (embedding.data_type, list(embedding.dims)) == (model_config_pb2.TYPE_FP32, [96])
    assert [(group.kind, group.count) for group in config.instance_group] == [(CPU, 3)]
    batching = config.dynamic_batching
    assert list(batching.preferred_batch_size) == [{"text": 32, "vision": 8}[tower]]
    assert batching.max_queue_delay_microseconds == 500
    assert batching.default_queue_policy.max_queue_size == 7
    assert not config.optimization.cuda.graphs
    assert config.version_policy.latest.num_versions == 1


@pytest.mark.parametrize("backend", ["python", "onnxruntime"])
@pytest.mark.parametrize("tower", TOWERS)
def test_warm_up_files_have_the_bytes_that_triton_reads(tiny_bundle: Path, tower: str, backend: str) -> None:
    model = served(tiny_bundle, tower, ServingOptions(backend=backend, max_batch=16))
    config = parsed(model.config)
    files = {name: content for warm_up in model.config.warm_ups for name, content in warm_up.files.items()}
    assert {sample.batch_size for sample in config.model_warmup} == {1, 16} | ({8} if tower == "vision" else set())
    for sample in config.model_warmup:
        assert set(sample.inputs) == {entry.name for entry in config.input}
        for given in sample.inputs.values():
            content = files[given.input_data_file]
            if given.data_type == model_config_pb2.TYPE_STRING:
                assert int.from_bytes(content[:4], "little") == len(content) - 4 > 0
            else:
                size = {model_config_pb2.TYPE_UINT8: 1, model_config_pb2.TYPE_INT64: 8}[given.data_type]
                for dimension in given.dims:
                    size *= dimension
                assert len(content) == size


def test_names_of_checkpoints_cannot_break_the_file(tiny_bundle: Path) -> None:
    config = served(tiny_bundle, "text", ServingOptions()).config
    hostile = 'a"\\\n}\u202eé'
    text = replace(config, remark=hostile, parameters={hostile: hostile}).text()
    read = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert {key: value.string_value for key, value in read.parameters.items()} == {hostile: hostile}
    assert read.name == "align_texts"


def test_the_parser_sees_faults(tiny_bundle: Path) -> None:
    text = served(tiny_bundle, "text", ServingOptions()).config.text()
    for fault in (text.replace("max_batch_size", "most_rows"), text.replace("TYPE_STRING", "TYPE_TEXT")):
        with pytest.raises(text_format.ParseError):
            text_format.Parse(fault, model_config_pb2.ModelConfig())


def test_batches_and_threads(tiny_bundle: Path) -> None:
    small = ServingOptions(backend="onnxruntime", max_batch=4, threads=2)
    config = parsed(served(tiny_bundle, "vision", small).config)
    assert (config.max_batch_size, list(config.dynamic_batching.preferred_batch_size)) == (4, [4])
    assert config.parameters["intra_op_thread_count"].string_value == "2"
    gpu = parsed(served(tiny_bundle, "vision", ServingOptions(backend="onnxruntime", device="cuda")).config)
    assert (gpu.max_batch_size, list(gpu.dynamic_batching.preferred_batch_size)) == (32, [8, 32])
    assert parsed(served(tiny_bundle, "text", ServingOptions(device="cuda")).config).instance_group[0].kind == GPU


def test_every_backend_has_a_maker() -> None:
    assert MAKERS.keys() == BACKENDS.keys()
