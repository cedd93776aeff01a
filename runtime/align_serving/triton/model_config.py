"""``config.pbtxt``: a model as Triton's ``ModelConfig`` describes it, as text for operators to read and change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from align_runtime.foreign_text import printable

Shapes = Mapping[str, tuple[int, ...]]  # sizes without the batch, by input


@dataclass(frozen=True)
class Tensor:
    """An input or output; a size of `dims`, which leave the batch out, is -1 where it is free."""

    name: str
    data_type: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class WarmUp:
    """One run before a model counts as ready: `batch` requests, each of which has the one row in `files`.

    Attributes:
        files: content of a file by its name; `inputs` has the name of each input's.
        dims: sizes of each input.
    """

    batch: int
    inputs: Mapping[str, str]
    dims: Shapes
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Profile:
    """A shape that an engine has a CUDA graph for."""

    batch: int
    dims: Shapes


@dataclass(frozen=True)
class ModelConfig:
    """A model.

    Attributes:
        remark: what the model is, a comment at the top.
        preferred: batch sizes that the batcher makes; empty where requests are not batched.
        parameters: for the backend and for clients.
        profiles: of a TensorRT engine, in its order.
    """

    name: str
    backend: str
    remark: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch: int
    preferred: tuple[int, ...]
    queue_delay: int
    queue_size: int
    on_gpu: bool
    instances: int
    parameters: Mapping[str, str] = field(default_factory=dict)
    warm_ups: tuple[WarmUp, ...] = ()
    profiles: tuple[Profile, ...] = ()

    def text(self) -> str:
        """The content of ``config.pbtxt``."""
        parts = [
            f"# {printable(self.remark)}",
            f"name: {_quoted(self.name)}",
            f"backend: {_quoted(self.backend)}",
            f"max_batch_size: {self.max_batch}",
            *(_tensor("input", tensor) for tensor in self.inputs),
            *(_tensor("output", tensor) for tensor in self.outputs),
            "",
            "# The newest version in this folder answers; a request may name none but this one.",
            "version_policy { latest { num_versions: 1 } }",
            "",
            *self._instances(),
            *self._batching(),
            *self._cuda_graphs(),
            *(f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"
              for key, value in self.parameters.items()),
            *self._warm_ups(),
        ]  # fmt: skip
        return "\n".join(parts) + "\n"

    def _instances(self) -> Iterable[str]:
        where = "one on each GPU, times count" if self.on_gpu else "on CPUs"
        profiles = ", ".join(f'"{index}"' for index in range(len(self.profiles)))
        yield f"# Copies of the model that run at once, {where}. Each has its own memory."
        kind = "KIND_GPU" if self.on_gpu else "KIND_CPU"
        suffix = f" profile: [ {profiles} ]" if self.profiles else ""
        yield f"instance_group [ {{ kind: {kind} count: {self.instances}{suffix} }} ]"
        yield ""

    def _batching(self) -> Iterable[str]:
        if not self.preferred:
            yield "# No dynamic_batching: the engine has kernels for a few batch sizes alone, and clients send those."
            yield ""
            return
        yield "# Requests run as one batch of a preferred size, or of what came within the delay of the oldest one."
        yield "# max_queue_size: requests that may wait before others are refused (UNAVAILABLE); 0 for any number."
        yield "dynamic_batching {"
        yield f"  preferred_batch_size: [ {', '.join(map(str, self.preferred))} ]"
        yield f"  max_queue_delay_microseconds: {self.queue_delay}"
        yield f"  default_queue_policy {{ max_queue_size: {self.queue_size} }}"
        yield "}"
        yield ""

    def _cuda_graphs(self) -> Iterable[str]:
        if not self.profiles:
            return
        yield "# A CUDA graph for each profile of the engine."
        yield "optimization { cuda {"
        yield "  graphs: true"
        for profile in self.profiles:
            shapes = " ".join(
                f"input {{ key: {_quoted(name)} value {{ dim: [ {_listed(dims)} ] }} }}"
                for name, dims in profile.dims.items()
            )
            yield f"  graph_spec {{ batch_size: {profile.batch} {shapes} }}"
        yield "} }"
        yield ""

    def _warm_ups(self) -> Iterable[str]:
        types = {tensor.name: tensor.data_type for tensor in self.inputs}
        if self.warm_ups:
            yield "\n# Golden inputs of the bundle, from the folder warmup/, before the model counts as ready."
        for index, warm_up in enumerate(self.warm_ups):
            yield f'model_warmup {{ name: "golden {index}, batch {warm_up.batch}" batch_size: {warm_up.batch}'
            for name, file in warm_up.inputs.items():
                yield (
                    f"  inputs {{ key: {_quoted(name)} value {{ data_type: {types[name]} "
                    f"dims: [ {_listed(warm_up.dims[name])} ] input_data_file: {_quoted(file)} }} }}"
                )
            yield "}"


def _tensor(kind: str, tensor: Tensor) -> str:
    return f"{kind} {{ name: {_quoted(tensor.name)} data_type: {tensor.data_type} dims: [ {_listed(tensor.dims)} ] }}"


def _listed(sizes: Iterable[int]) -> str:
    return ", ".join(map(str, sizes))


def _quoted(text: str) -> str:
    """`text` as a string of protobuf's text format: what is not plain ASCII as octal bytes."""
    plain = set(range(32, 127)) - {ord('"'), ord("\\")}
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode()) + '"'
