#!/usr/bin/env bash
# Builds the CUDA part in place, runs the kernel tests on the GPU and times the ops: bench/gpu_check.sh OUTDIR
# Needs python3 with torch, triton, numpy, pytest; nvcc and ninja. No network. Under 9 minutes. Leaves in OUTDIR:
# machine.json build.log tests.log times.json times.txt. Exit code: 0 all good, 1 something failed, 2 no GPU or wrong use.
set -uo pipefail

if [ $# -ne 1 ]; then
  echo "usage: bench/gpu_check.sh OUTDIR" >&2
  exit 2
fi
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
python=${PYTHON:-python3}

if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  echo "gpu_check: PyTorch sees no GPU here, nothing was checked" >&2
  exit 2
fi

cores=$(getconf _NPROCESSORS_ONLN)
export MAX_JOBS=${MAX_JOBS:-$cores} PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
unset TRITON_INTERPRET
failed=()

# phase NAME SECONDS LOG COMMAND...: runs on after a failure, so that one lease shows all that is wrong
phase() {
  local name=$1 seconds=$2 log=$3 start=$SECONDS
  shift 3
  echo "== $name"
  timeout --kill-after=10 "$seconds" "$@" >"$log" 2>&1
  local code=$?
  echo "   exit code $code after $((SECONDS - start)) s"
  if [ $code -ne 0 ]; then
    failed+=("$name")
    tail -n 25 "$log"
  fi
}

phase machine 20 "$out/machine.json" "$python" bench/gpu_check.py machine
phase build 120 "$out/build.log" env F2D_KERNELS_FORCE_CUDA=1 "$python" setup.py build_ext --inplace
phase tests 210 "$out/tests.log" env F2D_KERNELS_TEST_DEVICE=cuda "$python" -m pytest tests/kernels -m "not slow" -rs \
  -p no:cacheprovider --ignore=tests/kernels/test_triton_compile.py
tail -n 3 "$out/tests.log"
phase times 170 "$out/times.txt" "$python" bench/gpu_check.py times "$out/times.json"
cat "$out/times.txt"

if [ ${#failed[@]} -ne 0 ]; then
  echo "gpu_check: FAILED: ${failed[*]}"
  exit 1
fi
echo "gpu_check: all passed"
