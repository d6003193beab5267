#!/usr/bin/env bash
# Builds the CUDA part in place, runs the kernel tests on the GPU, a short case under compute-sanitizer, and the benchmark
# suite: bench/gpu_check.sh OUTDIR
# It needs nvcc and python3 with torch, triton, numpy, pytest and pytest-benchmark, but no network, and takes under 9
# minutes: the phases may take 15 + 120 + 185 + 45 + 160 = 525 s. It writes machine.json build.log tests.log sanitizer.log
# bench.json bench.csv bench.txt to OUTDIR. Exit codes: 0, all passed; 1, something failed; 2, no GPU or wrong usage.
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
  echo "gpu_check: PyTorch finds no GPU, so nothing was checked" >&2
  exit 2
fi

cores=$(getconf _NPROCESSORS_ONLN)
export MAX_JOBS=${MAX_JOBS:-$cores} PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
unset TRITON_INTERPRET
failed=()

# phase NAME SECONDS LOG COMMAND...: continues after a failure, so that one run shows all problems
phase() {
  local name=$1 seconds=$2 log=$3 start=$SECONDS
  shift 3
  echo "== $name"
  timeout --kill-after=1 "$seconds" "$@" >"$log" 2>&1
  local code=$?
  echo "   exit code $code after $((SECONDS - start)) s"
  if [ $code -ne 0 ]; then
    failed+=("$name")
    tail -n 25 "$log"
  fi
}

phase build 120 "$out/build.log" env F2D_KERNELS_FORCE_CUDA=1 "$python" setup.py build_ext --inplace
phase machine 15 "$out/machine.json" "$python" bench/gpu_check.py machine

left_out=()
while read -r path missing; do
  echo "skipped: $path needs $missing"
  left_out+=("--ignore=$path")
done < <("$python" bench/gpu_check.py unrunnable)
phase tests 185 "$out/tests.log" env F2D_KERNELS_TEST_DEVICE=cuda "$python" -m pytest tests/kernels -m "not slow" -rs \
  -p no:cacheprovider --ignore=tests/kernels/test_triton_compile.py "${left_out[@]}"
tail -n 3 "$out/tests.log"

sanitizer=$(command -v compute-sanitizer || ls "${CUDA_HOME:-/usr/local/cuda}"/bin/compute-sanitizer 2>/dev/null)
if [ -n "$sanitizer" ]; then
  phase sanitizer 45 "$out/sanitizer.log" "$sanitizer" --tool memcheck --error-exitcode 9 "$python" bench/gpu_check.py short
else
  echo "== sanitizer: skipped, because compute-sanitizer is not installed" | tee "$out/sanitizer.log"
fi

# it stops between two cases; the rest of the 160 s is for the last case
phase bench 160 "$out/bench.txt" "$python" -m bench.run --device cuda --seconds 125 --json "$out/bench.json" --csv "$out/bench.csv"
sed -n '/^Summary/,$p' "$out/bench.txt"

if [ ${#failed[@]} -ne 0 ]; then
  echo "gpu_check: FAILED: ${failed[*]}"
  exit 1
fi
echo "gpu_check: all passed"
