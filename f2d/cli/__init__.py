"""The `f2d` command, one file per subcommand; PyTorch is imported inside them, so that `f2d --help` is instant."""

import os
import time

# OpenMP threads that spin while they wait starve each other when something else wants the cores too: six photographs of
# the demo took 116 s beside a training run, and 13 s with threads that sleep. Read once, when PyTorch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it

STARTED = time.perf_counter()  # what "whole command" is counted from
