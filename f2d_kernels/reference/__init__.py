"""Plain PyTorch: readable as the formula, runs on every device, float64 where the others use float32 polynomials.

Each file has `formula` and `gradients`, from which PyTorch takes all derivatives that the kernels do not have
(forward mode, second derivatives), and `forward` and `backward`, which fill results with them. `gradients` returns a
list without those that are not needed.
"""
