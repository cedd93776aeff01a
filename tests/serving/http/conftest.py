"""align-tiny, opened once for the tests of the service, and clients of applications around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from align_runtime.load_options import LoadOptions
from align_serving.http.opening import Opened, ServiceOptions, application

MakeClient = Callable[..., TestClient]


@pytest.fixture(scope="session")
def opened(tiny_bundle: Path) -> Iterator[Opened]:
    opened = Opened.of(tiny_bundle, ServiceOptions(load=LoadOptions(threads=2)))
    with opened.towers.model:
        yield opened


@pytest.fixture
def make_client(opened: Opened) -> Iterator[MakeClient]:
    """A client of an application with the options that it is given; errors of the server become responses."""
    clients: list[TestClient] = []

    def make(changed: Opened = opened, **options: Any) -> TestClient:
        app = application(changed, replace(ServiceOptions(), **options))
        clients.append(TestClient(app, raise_server_exceptions=False).__enter__())
        return clients[-1]

    yield make
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(make_client: MakeClient) -> TestClient:
    return make_client()
