"""What several modules ask: a stored memory to be damaged, planted results in a store, a chat endpoint."""

import itertools
import shutil
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from sims.experiments.experiment import Evidence
from sims.store import Store
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
def evidence_of(tmp_path):
    """evidence_of(cases) keeps the results of planted cases in a store of their own."""
    names = (tmp_path / f"planted-{number}.sqlite" for number in itertools.count())

    def make(cases) -> Evidence:
        cases, store = list(cases), stores.enter_context(Store(next(names)))
        for one in cases:
            store.put(one.result)
        return Evidence(cases, store)

    with ExitStack() as stores:
        yield make


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
