"""A cluster of its own for the tests that kill: what they leave behind must not meet other tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.actors import Actors
from tests.fault.runs import Runs
from tests.integration.conftest import Cluster, running_cluster


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    import ray

    ray.shutdown()  # Of the integration tests, where they ran before; they are over then.
    with running_cluster() as running:
        yield running


@pytest.fixture
def actors(cluster: Cluster) -> Actors:
    return Actors()


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)
