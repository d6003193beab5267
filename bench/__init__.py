"""Benchmarks of the kernels and of restoration; run as `python -m bench.NAME`."""
