#!/usr/bin/env bash
# Check the kernels on a GPU in five minutes, and then train on it for seven:
#
#   bench/gpu_check.sh OUTDIR [--train RUN --data DIR] [--dry-run]
#
# Builds the CUDA part in place for this GPU, runs the kernel tests on it, has compute-sanitizer watch a short case, and
# times the ops. With --train it then resumes a copy of the run in RUN (a folder of `f2d train`) on the photographs in
# DIR, with synthesis on the GPU. --dry-run prints the phases, their limits in seconds and their commands.
#
# Needs python3 with torch, triton, numpy, pytest and pytest-benchmark, and nvcc; with --train also what f2d[train]
# installs. No network. OUTDIR receives at most eight files of at most 16 MiB: machine.json, build.log, tests.log,
# sanitizer.log, bench.json, bench.txt, and the trained run as run.tar.gz.00 and .01 (join them with cat).
# Exit code: 0 all passed, 1 something failed, 2 no GPU or wrong use.
set -uo pipefail

usage() {
  echo "usage: bench/gpu_check.sh OUTDIR [--train RUN --data DIR] [--dry-run]${1:+ ($1)}" >&2
  exit 2
}

out='' run='' data='' dry=''
while [ $# -gt 0 ]; do
  case $1 in
    --train) run=${2-}; [ -d "$run" ] || usage "--train: no folder '$run'"; shift 2 ;;
    --data) data=${2-}; [ -d "$data" ] || usage "--data: no folder '$data'"; shift 2 ;;
    --dry-run) dry=1; shift ;;
    -*) usage "unknown option $1" ;;
    *) [ -z "$out" ] || usage "two output folders"; out=$1; shift ;;
  esac
done
[ -n "$out" ] || usage
[ -z "$run" ] || [ -n "$data" ] || usage "--train needs --data"
[ -z "$run" ] || [ -f "$run/last.ckpt" ] || usage "$run has no last.ckpt to resume"
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
[ -z "$run" ] || run=$(cd "$run" && pwd) data=$(cd "$data" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
python=${PYTHON:-python3}

if [ -z "$dry" ] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  echo "gpu_check: PyTorch finds no GPU, so nothing was checked" >&2
  exit 2
fi

export MAX_JOBS=${MAX_JOBS:-$(getconf _NPROCESSORS_ONLN)} PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
unset TRITON_INTERPRET
most=$((16 * 1024 * 1024))
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
failed=()

# phase NAME SECONDS LOG COMMAND...: continues after a failure, so that one run shows all problems. A command that is
# stopped at its limit has failed, except `train`, which always ends so.
phase() {
  local name=$1 seconds=$2 log=$3 start=$SECONDS
  shift 3
  echo "== $name, at most $seconds s"
  if [ -n "$dry" ]; then
    echo "   $*"
    return
  fi
  timeout --kill-after=5 "$seconds" "$@" >"$log" 2>&1
  local code=$?
  echo "   exit code $code after $((SECONDS - start)) s"
  [ "$(stat -c %s "$log")" -le $most ] || { tail -c $most "$log" >"$work/tail" && mv "$work/tail" "$log"; }
  if [ "$name" = train ] && [ $code -eq 124 ]; then
    return
  fi
  if [ $code -ne 0 ]; then
    failed+=("$name")
    tail -n 25 "$log"
  fi
}

# The limits add up to 10 + 60 + 120 + 30 + 80 = 300 s, and 420 s of training.
phase machine 10 "$out/machine.json" "$python" bench/gpu_check.py machine
if [ -n "$dry" ]; then
  capability='of this GPU'
else
  capability=$("$python" -c 'import torch; print("{}.{}".format(*torch.cuda.get_device_capability()))')
fi
phase build 60 "$out/build.log" env F2D_KERNELS_FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="$capability" \
  "$python" setup.py build_ext --inplace

left_out=()
if [ -z "$dry" ]; then
  while read -r path missing; do
    echo "skipped: $path needs $missing"
    left_out+=("--ignore=$path")
  done < <("$python" bench/gpu_check.py unrunnable)
fi
phase tests 120 "$out/tests.log" env F2D_KERNELS_TEST_DEVICE=cuda "$python" -m pytest tests/kernels -m "not slow" -rs \
  -p no:cacheprovider --ignore=tests/kernels/test_triton_compile.py --ignore=tests/kernels/test_cuda_compile.py \
  ${left_out[@]+"${left_out[@]}"}
[ -n "$dry" ] || tail -n 3 "$out/tests.log"

sanitizer=$(command -v compute-sanitizer || ls "${CUDA_HOME:-/usr/local/cuda}"/bin/compute-sanitizer 2>/dev/null)
if [ -n "$sanitizer" ]; then
  phase sanitizer 30 "$out/sanitizer.log" "$sanitizer" --tool memcheck --error-exitcode 9 "$python" bench/gpu_check.py short
else
  echo "== sanitizer: skipped, because compute-sanitizer is not installed" | tee "$([ -n "$dry" ] && echo /dev/null || echo "$out/sanitizer.log")"
fi

# it stops between two cases; the rest of the limit is for the last case
phase bench 80 "$out/bench.txt" "$python" -m bench.run --device cuda --quick --seconds 60 --json "$out/bench.json"
[ -n "$dry" ] || sed -n '/^Summary/,$p' "$out/bench.txt"

if [ -n "$run" ]; then
  mkdir "$work/run" && cp "$run"/*.* "$work/run/"
  before=$(stat -c %Y "$work/run/last.ckpt")
  phase train 420 "$work/run/train.log" "$python" -m f2d train "$work/run/recipe.yaml" --data "$data" -o "$work/run" \
    --resume -s synthesis=device -s save_every=100 --devices 1 --accelerator cuda
  if [ -z "$dry" ]; then
    [ "$(stat -c %Y "$work/run/last.ckpt")" -gt "$before" ] || { echo "   no step was saved" && failed+=("train"); }
    tar -C "$work" -cz run | split -d -b $most - "$out/run.tar.gz."
    parts=("$out"/run.tar.gz.*)
    if [ ${#parts[@]} -gt 2 ]; then
      echo "   the run takes ${#parts[@]} parts of 16 MiB where two are allowed: only its last.ckpt is kept"
      rm "${parts[@]}"
      tar -C "$work/run" -cz last.ckpt losses.csv | split -d -b $most - "$out/run.tar.gz."
    fi
  fi
fi

if [ ${#failed[@]} -ne 0 ]; then
  echo "gpu_check: FAILED: ${failed[*]}"
  exit 1
fi
if [ -n "$dry" ]; then echo "gpu_check: dry run, nothing was checked"; else echo "gpu_check: all passed"; fi
