"""A process that compiles Triton's kernels, which the other tests have interpreted."""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest


@pytest.fixture(scope="session")
def compiling() -> Iterator[ProcessPoolExecutor]:
    interpreted = os.environ.pop("TRITON_INTERPRET", None)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(os.getpid).result()
        if interpreted is not None:
            os.environ["TRITON_INTERPRET"] = interpreted
        yield pool
