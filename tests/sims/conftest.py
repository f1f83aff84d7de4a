"""The stored memory that several modules ask, damage and change."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def stored(tmp_path_factory) -> Path:
    """A memory of `memory_making.FACTS`: to be read alone."""
    from tests.sims.memory_making import stored_memory  # not for tests that need no memory

    return stored_memory(tmp_path_factory)


@pytest.fixture
def folder(stored, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(stored, tmp_path / "memory"))
