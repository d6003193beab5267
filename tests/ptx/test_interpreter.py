"""The executor against Triton's interpreter, which runs the source of the kernels and knows nothing of PTX."""

import numpy as np
import pytest

from f2d_kernels.triton import unavailable_reason
from tests.ptx.check import executed, interpreted
from tests.ptx.ops import WINDOW, Case

pytest.importorskip("triton")
if (reason := unavailable_reason("cpu")) is not None:
    pytest.skip(reason, allow_module_level=True)

CASES = {  # case -> results and gradients that are no sums over channels or pixels, whose order is the compiler's
    Case("expert_assembly", size=(5, 13)): (0, 1, 4),
    Case("lognormal_transition", size=(5, 13), window=WINDOW): (0, 1, 2),
    Case("gaussian_transition", size=(4, 16)): (0, 3, 4),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_executor_agrees_with_the_interpreter(case, compiling):
    found, expected = compiling.submit(executed, case).result(), interpreted(case)
    assert len(found) == len(expected)
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        if i in CASES[case]:
            assert np.array_equal(a, b), f"result {i} differs"
        else:
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())
