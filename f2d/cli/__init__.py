"""The `f2d` command, one file per subcommand; PyTorch is imported inside them, so that `f2d --help` is instant."""

import os
import time

# OpenMP threads that spin while they wait starve each other when another process uses the same cores: beside a training
# run the demo took 116 s, and 13 s with threads that sleep. PyTorch reads the variable once, when it is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it

STARTED = time.perf_counter()  # the start of the time that "whole command" reports
