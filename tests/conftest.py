"""Fixtures shared by all tests."""

import os
from pathlib import Path

# Before PyTorch is loaded: two test processes whose threads spin while they wait stop each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch

# Where no GPU is, the Triton kernels run in Triton's interpreter. The switch counts before triton's first import, and
# lightning imports triton.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared(request) -> Path:
    """The research data beside the checkout; a test that asks for it is skipped, and says so, where users do not have
    it."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the research data beside the checkout (photographs, published weights), which is missing")
    return SHARED


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium; skipped where there is none."""
    from tests.browsing import chromium  # here, so that tests of the kernels can be copied with this file alone

    with chromium() as running:
        yield running
