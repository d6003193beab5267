"""The compiled host driver, built once for the files of tests that call it."""

import pytest

from .host_driver import COMPILER, Driver


def hardware_fma() -> bool:
    with open("/proc/cpuinfo") as file:
        return " fma " in file.read()


@pytest.fixture(scope="session", params=["", "-mfma"], ids=["software fma", "hardware fma"])
def driver(request, tmp_path_factory):
    """csrc's headers and the CUDA kernels' bodies, compiled for the host."""
    if COMPILER is None:
        pytest.skip("needs a C++ compiler")
    if request.param and not hardware_fma():
        pytest.skip("this processor has no fma instruction")
    return Driver(tmp_path_factory.mktemp("driver"), [request.param] if request.param else [])
