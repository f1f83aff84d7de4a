"""What several modules ask: a stored memory to be damaged and changed, and a chat endpoint of this machine."""

import shutil
import threading
from pathlib import Path

import pytest

from tests.sims.chat_server import KEY, Played


@pytest.fixture(scope="session")
def stored(tmp_path_factory) -> Path:
    """A memory of `memory_making.FACTS`: to be read alone."""
    from tests.sims.memory_making import stored_memory  # not for tests that need no memory

    return stored_memory(tmp_path_factory)


@pytest.fixture
def folder(stored, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(stored, tmp_path / "memory"))


@pytest.fixture
def serve(monkeypatch):
    """serve(play) starts a server; its models' key is in the environment."""
    monkeypatch.setenv("PLAYED_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "organization-of-somebody")
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    servers = []

    def start(play):
        servers.append(Played(play))
        threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
