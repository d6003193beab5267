"""Fixtures shared by all tests."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared(request) -> Path:
    """The research data beside the checkout; a test that asks for it is skipped, and says so, where users do not have it."""
    if not (SHARED / "golden").is_dir():
        pytest.skip("needs the research data folder beside the checkout (golden tensors, photographs), which is not here")
    return SHARED
