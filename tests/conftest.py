"""Hypothesis profiles, strict modes, and the files that lie outside the repository."""

import os
from pathlib import Path

# Before anything imports JAX: nothing may be broadcast or promoted by accident, and no compiled program is kept.
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers
from jaxtyping import install_import_hook

# Shapes and types in the signatures of these modules are checked on every call that a test makes. (Not where tests
# hand in wrong values on purpose, to see them refused in words.)
_ARRAYS = ("audit", "entropy", "features", "keyed", "lanes", "measures", "networks", "runs", "summary", "training")
install_import_hook(["mome_jax", *(f"sims.{module}" for module in _ARRAYS)], "beartype.beartype")

# The gate asks the same of everybody: its examples follow from the tests alone, and not from the constants of whatever
# modules earlier tests imported. New ones are hunted by hand, with
# `HYPOTHESIS_PROFILE=deep uv run --group test pytest -n 2 -m hypothesis`; what it finds gets a test of its own.
settings.register_profile("gate", deadline=None, max_examples=50, derandomize=True, database=None)
settings.register_profile("deep", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))
if settings.get_current_profile_name() == "gate":
    providers._get_local_constants = lambda: providers._local_constants

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real fact files beside the checkout; tests that need it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real fact files lie beside the checkout in shared/data, which is absent here")
    return SHARED_DATA


def pytest_make_parametrize_id(val: object) -> str | None:
    """Bytes are named by their number, not their content: workers must agree on names, and a clock may be inside."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None
