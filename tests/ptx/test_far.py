"""Launches for images of 2^31 elements a sample and more. No kernel runs and no memory is touched, because the
launchers do the arithmetic that is tested here."""

import torch

from bench.ptx import cuda
from tests.ptx.test_ops import needs_nvcc

LANE = 4 * 8  # elements of one lane, at most: a quad in each of kSteps steps


@needs_nvcc
def test_every_element_of_a_long_sample_has_a_thread():
    """With noise given, a channels_last sample becomes one row, here of more columns than 31 bits count."""
    image = torch.empty(1, 2**15, 2**15, 2, dtype=torch.bfloat16).movedim(-1, 1)
    one, started = torch.ones(1), []

    def record(program, grid, block, parameters, shared=0):
        started.append(int.from_bytes(parameters[-8:], "little"))  # the last parameter: the number of threads

    forward, backward = cuda.functions("lognormal_transition")
    source = (one, one, image, None, 0, 0, 0)
    with cuda.starting(record, lambda _, ptx: ptx):
        forward(image, image, image, *source)
        backward(image, image, image, *source, image, image, None, None, image)
    assert len(started) == 2
    assert 4 * started[0] >= image.numel() and LANE * started[1] >= image.numel()
