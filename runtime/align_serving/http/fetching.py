"""Fetching images from the hosts that the operator lists, and from nowhere else.

A name is resolved once, every address that it has is checked, and the connection goes to the address that was checked:
a name that changes its address in between leads nowhere else. Redirects are not followed, and no proxy is used.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from align_runtime.errors import ConfigurationError, InputError
from align_runtime.foreign_text import shortened

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
PORTS = {"http": 80, "https": 443}
MAX_URL = 2048
UNICAST = ipaddress.IPv6Network("2000::/3")


@dataclass(frozen=True)
class FetchOptions:
    """Where images are fetched from.

    Attributes:
        hosts: ``"images.example.com"`` (its ports 80 and 443) or ``"images.example.com:8443"``; none by default.
        networks: addresses that are not public, e.g. ``"10.0.0.0/8"``, which a listed host may have.
        max_bytes: of one image.
        seconds: of one image, from the connection to the last byte.

    Raises:
        ConfigurationError: a host or network is malformed.
    """

    hosts: Sequence[str] = ()
    networks: Sequence[str] = ()
    max_bytes: int = 32 << 20
    seconds: float = 10.0

    def __post_init__(self) -> None:
        for host in self.hosts:
            try:
                parts = urlsplit(f"//{host}")
                wrong = parts.netloc != host or not parts.hostname or "@" in host or parts.port == 0
            except ValueError:
                wrong = True
            if wrong:
                raise ConfigurationError(f"the host {shortened(host)} is malformed; expected name, or name:port")
        for network in self.networks:
            try:
                ipaddress.ip_network(network)
            except ValueError as reason:
                raise ConfigurationError(f"the network {shortened(network)} is malformed: {reason}") from None

    def allows(self, url: SplitResult) -> bool:
        """Whether the host and port of `url` are listed."""
        name, port = str(url.hostname), url.port or PORTS[url.scheme]
        listed = {urlsplit(f"//{host.lower()}").netloc for host in self.hosts}
        plain = f"[{name}]" if ":" in name else name
        return f"{plain}:{port}" in listed or (plain in listed and port == PORTS[url.scheme])


class Fetcher:
    """Fetches encoded images by `options`."""

    def __init__(self, options: FetchOptions) -> None:
        self._options = options
        self._networks = [ipaddress.ip_network(network) for network in options.networks]
        self._tls = ssl.create_default_context()

    def fetch(self, text: str) -> bytes:
        """The body of the answer to GET `text`. Blocks.

        Raises:
            InputError: the URL is not allowed, or is not answered with 200 and a body within the limits.
        """
        url, shown = _parsed(text), shortened(text, 80)
        if not self._options.hosts:
            raise InputError(f"the image is the URL {shown}; this server fetches none, send base64 or a data URI")
        if not self._options.allows(url):
            raise InputError(f"the host of {shown} is not one that this server fetches from; send base64")
        deadline = time.monotonic() + self._options.seconds
        try:
            address = self._checked_address(url)
            return self._get(url, address, deadline)
        except InputError:
            raise
        except (OSError, http.client.HTTPException, ValueError) as reason:
            raise InputError(f"{shown} cannot be fetched: {reason or type(reason).__name__}") from None

    def _checked_address(self, url: SplitResult) -> str:
        port = url.port or PORTS[url.scheme]
        found = socket.getaddrinfo(url.hostname, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        for text in addresses:
            address = ipaddress.ip_address(text.partition("%")[0])
            plain = getattr(address, "ipv4_mapped", None) or address
            if not _is_public(plain) and not any(plain in network for network in self._networks):
                raise InputError(f"the host of {shortened(url.geturl(), 80)} has an address that is not public")
        return addresses[0]

    def _get(self, url: SplitResult, address: str, deadline: float) -> bytes:
        port = url.port or PORTS[url.scheme]
        connection = http.client.HTTPConnection(str(url.hostname), port)
        connection.sock = socket.create_connection((address, port), timeout=_left(deadline))
        if url.scheme == "https":
            connection.sock = self._tls.wrap_socket(
                connection.sock, server_hostname=url.hostname, do_handshake_on_connect=False
            )
        # A timeout of a socket is of one read: a server that sends a byte now and then is cut off by this.
        cut_off = threading.Timer(_left(deadline), _cut, [connection.sock])
        cut_off.start()
        with closing(connection), closing(connection.sock):
            try:
                if isinstance(connection.sock, ssl.SSLSocket):
                    connection.sock.do_handshake()
                path = (url.path or "/") + (f"?{url.query}" if url.query else "")
                connection.request("GET", path, headers={"accept": "image/*", "accept-encoding": "identity"})
                data = self._read(connection.getresponse(), shortened(url.geturl(), 80))
            finally:
                cut_off.cancel()
        _left(deadline)  # what was cut off may look like the end of a body
        return data

    def _read(self, answer: http.client.HTTPResponse, shown: str) -> bytes:
        if answer.status != 200:
            raise InputError(f"{shown} is answered with {answer.status}; expected 200")
        data = answer.read(self._options.max_bytes + 1)
        if len(data) > self._options.max_bytes:
            raise InputError(f"{shown} has more than {self._options.max_bytes} bytes; send a smaller image")
        return data


def _parsed(text: str) -> SplitResult:
    shown = shortened(text, 80)
    try:
        url = urlsplit(text)
        fits = url.scheme in PORTS and url.hostname and "@" not in url.netloc and url.port != 0
    except ValueError:
        fits = False
    if not fits or len(text) > MAX_URL or not text.isascii() or not text.isprintable() or " " in text:
        raise InputError(f"the image {shown} is not an http or https URL without user, spaces or control characters")
    return url


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether `address` is one of the Internet; not one of IPv6 that stands for an address of IPv4."""
    if not address.is_global or address.is_multicast:  # some that are for groups are "global" too
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return True
    return address in UNICAST and address.sixtofour is None and address.teredo is None


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _cut(connected: socket.socket) -> None:
    with suppress(OSError):  # closed already
        connected.shutdown(socket.SHUT_RDWR)
