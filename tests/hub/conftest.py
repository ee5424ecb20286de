"""The Hub's real client, in front of a small Hub of ours."""

import pytest
from hub_client import started
from hub_server import Hub


@pytest.fixture(scope="session")
def server():
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def hub(server):
    """The Hub without repositories, faults or a memory of what was asked."""
    for kept in (server.repos, server.stored, server.faults, server.asked):
        kept.clear()
    return server


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("hf")


@pytest.fixture(scope="session")
def client(server, cache):
    with started(server.url, cache) as call:
        yield call
