"""HTTP and gRPC by NVIDIA's tritonclient: the few calls that a client of a graph makes, with errors of this project."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from numpy.typing import NDArray

from align_runtime.errors import BackendUnavailableError, ConfigurationError, DeviceError
from align_runtime.foreign_text import cut, printable, shortened
from align_runtime.lifetime import is_forked
from align_runtime.workers import Workers
from align_serving.triton.contract import DATATYPES

Protocol = Literal["grpc", "http"]
PROTOCOLS: tuple[Protocol, Protocol] = ("grpc", "http")
GRPC, HTTP = PROTOCOLS
MAX_REASON = 250  # characters of what a server or the network says

T = TypeVar("T")


@dataclass(frozen=True)
class ServerModel:
    """A model on a server: name, ``config.pbtxt`` as a mapping, and the version asked for, empty for the newest."""

    name: str
    config: Mapping[str, Any]
    version: str = ""


class Transport:
    """A connection to one server, which any number of threads may share.

    The HTTP client of tritonclient works in the thread that made it alone, so that it has one of its own here, and its
    requests go one after the other.
    """

    def __init__(self, url: str, protocol: str, timeout: float, ssl: bool, headers: Mapping[str, str]) -> None:
        """See `align_serving.triton.client.ClientOptions`.

        Raises:
            ConfigurationError: `protocol` is unknown, or `url` is not one.
            BackendUnavailableError: tritonclient is not installed.
        """
        if protocol not in PROTOCOLS:
            raise ConfigurationError(f"protocol is {shortened(protocol)}; known: {', '.join(PROTOCOLS)}")
        try:
            self._client_module: Any = importlib.import_module(f"tritonclient.{protocol}")
        except (ImportError, RuntimeError) as reason:  # RuntimeError: its own words for a missing dependency
            raise BackendUnavailableError(
                f"tritonclient cannot be imported ({cut(printable(str(reason)), 100)}); install it with: "
                "pip install 'align-onnx[triton]'"
            ) from None
        self.url = url
        self._process, self._closed = os.getpid(), False
        self.in_flight = 2 if protocol == GRPC else 1
        self._headers = dict(headers) or None
        self._worker = Workers(1) if protocol == HTTP else None
        self._timeouts = {"client_timeout": timeout} if protocol == GRPC else {}
        limits = {} if protocol == GRPC else {"connection_timeout": timeout, "network_timeout": timeout}
        try:
            self._client = self._run(
                lambda: self._client_module.InferenceServerClient(url=url, ssl=ssl, **limits), ConfigurationError
            )
        except ConfigurationError as reason:
            raise ConfigurationError(f"url is {shortened(url)}; expected host:port ({reason})") from None

    def model(self, name: str, version: str) -> ServerModel:
        """The model `name`, which is ready.

        Raises:
            BackendUnavailableError: no server answers.
            ConfigurationError: it has no such model, or it is not ready.
        """
        self._run(lambda: self._client.is_server_live(headers=self._headers, **self._timeouts), BackendUnavailableError)
        as_json = {"as_json": True} if self._client_module.__name__.endswith(GRPC) else {}
        found = self._run(
            lambda: self._client.get_model_config(name, version, headers=self._headers, **as_json, **self._timeouts),
            ConfigurationError,
        )
        return ServerModel(name, found.get("config", found), version)

    def infer(self, model: ServerModel, inputs: Mapping[str, NDArray[Any]], output: str) -> Any:
        """The array `output` of one request.

        Raises:
            DeviceError: the server refuses or fails, or does not answer in time.
        """
        module = self._client_module
        sent = []
        for name, values in inputs.items():
            tensor = module.InferInput(name, list(values.shape), DATATYPES[str(values.dtype)])
            tensor.set_data_from_numpy(values)
            sent.append(tensor)
        wanted = [module.InferRequestedOutput(output)]
        result = self._run(
            lambda: self._client.infer(
                model.name,
                sent,
                model_version=model.version,
                outputs=wanted,
                headers=self._headers,
                **self._timeouts,
            ),
            DeviceError,
        )
        return result.as_numpy(output)

    def close(self) -> None:
        """Ends the connection. Closing twice is allowed; in a forked child it does nothing."""
        if self._closed or is_forked(self._process):
            return
        self._closed = True
        self._run(self._client.close, DeviceError)
        if self._worker is not None:
            self._worker.close()

    def _run(self, call: Callable[[], T], error: type[Exception]) -> T:
        def explained_call() -> T:
            with self._explained(error):
                return call()

        return explained_call() if self._worker is None else self._worker.run(explained_call)

    @contextmanager
    def _explained(self, error: type[Exception]) -> Iterator[None]:
        """Failures of client and network as `error`."""
        failure = importlib.import_module("tritonclient.utils").InferenceServerException
        try:
            yield
        except (failure, OSError, ValueError) as reason:
            said = reason.message() if isinstance(reason, failure) else str(reason) or type(reason).__name__
            raise error(f"Triton at {printable(self.url, 80)}: {cut(printable(str(said)), MAX_REASON)}") from None
