"""Plain PyTorch: readable as the formula, runs on every device, float64 where the others use float32 polynomials."""
