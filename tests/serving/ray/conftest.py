"""A real Ray cluster on this machine: a head and two nodes, each of several processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # 15 by default: beside other work, workers would start in minutes
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # A machine with two cores starts a worker in seconds, not in the milliseconds that these expect.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "120",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "60",
    "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in ("runtime", "tests")),
}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """`ray.cluster_utils.Cluster`, connected: a head without CPUs, and two nodes with one CPU each."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        import ray
        from ray.cluster_utils import Cluster

        memory = 100 << 20
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "object_store_memory": memory, "include_dashboard": False},
        )
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=memory)
        ray.init(address=cluster.address, log_to_driver=False)
        try:
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
