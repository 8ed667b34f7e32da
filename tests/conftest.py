"""What every test shares."""

import os
from pathlib import Path

# Before torch is imported: a waiting thread that spins takes the core from whoever it waits for.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    # The files of tests share out the cores; threads of each would only get in each other's way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# Shapes and dtypes are part of the signatures; they are checked here and cost nothing in production.
install_import_hook(["retrieval.models", "retrieval.losses", "retrieval.sampling", "retrieval.training"], "beartype.beartype")

# A shared machine is slow at times; the time of one example says nothing.
settings.register_profile("project", deadline=None, max_examples=40, derandomize=bool(os.environ.get("CI")))
settings.load_profile("project")


@pytest.fixture
def real_data() -> Path:
    """The folder of the real data sets; the test is skipped where $RETRIEVAL_DATA does not name one."""
    folder = os.environ.get("RETRIEVAL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("RETRIEVAL_DATA names no folder of data sets")
    return Path(folder)
