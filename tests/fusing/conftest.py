"""Pairs are fused whatever their size: tests of results use small tensors."""

import pytest

from f2d_kernels.fusing.pairs import at_any_size


@pytest.fixture(autouse=True)
def _at_any_size(request):
    if "own_sizes" in request.fixturenames:
        yield
        return
    with at_any_size():
        yield


@pytest.fixture
def own_sizes():
    """The test sees what a user sees: small tensors run as written."""
