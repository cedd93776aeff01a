"""Where a command listens, and who may ask: options that `align-serve` and `align-search serve` share."""

from __future__ import annotations

import argparse
import socket

from align_runtime.errors import ConfigurationError
from align_runtime.standard_streams import complain
from align_runtime.user_path import user_path
from align_serving.http.api_keys import KEY_VARIABLE, environment_keys, read_keys

LOOPBACK = ("127.0.0.1", "::1", "localhost")
INSTALL = "pip install 'align-onnx[http]'"


def add_listening_options(parser: argparse.ArgumentParser, port: int) -> None:
    """``--host``, ``--port`` (`port` by default) and ``--api-key-file``."""
    add = parser.add_argument_group("server").add_argument
    add("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 is every one (default: 127.0.0.1)")
    add("--port", type=int, default=port, help=f"0 takes a free one and prints it (default: {port})")
    add(
        "--api-key-file",
        type=user_path,
        metavar="FILE",
        help=f"API keys, one per line, of which a request needs one; also the variable {KEY_VARIABLE} (default: none)",
    )


def chosen_keys(options: argparse.Namespace) -> tuple[str, ...]:
    """The API keys of the environment and of ``--api-key-file``.

    Raises:
        ConfigurationError: as in `environment_keys` and `read_keys`.
    """
    return (*environment_keys(), *(read_keys(options.api_key_file) if options.api_key_file else []))


def checked_port(port: int) -> int:
    if not 0 <= port < 1 << 16:
        raise ConfigurationError(f"--port is {port}; expected 0 to 65535")
    return port


def address(host: str, bound: socket.socket) -> str:
    """The URL of a server at `host` whose socket is `bound`."""
    return f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"


def warn_if_open(program: str, options: argparse.Namespace, keys: tuple[str, ...], open_to: str) -> None:
    """Says on stderr that whoever reaches another address than loopback may do what `open_to` says, without keys."""
    if not keys and options.host not in LOOPBACK:
        complain(f"{program}: no API key is set: whoever reaches this address {open_to}; see --api-key-file")
