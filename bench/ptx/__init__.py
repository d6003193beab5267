"""Executes the PTX of CUDA and Triton kernels on a CPU, checks every access and counts what a GPU would have to do."""
