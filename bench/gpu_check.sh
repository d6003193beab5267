#!/usr/bin/env bash
# Check and time the kernels on a GPU in five minutes, and then train on it for the rest of the time:
#
#   bench/gpu_check.sh OUTDIR [--train RUN | --finetune WEIGHTS] [--data DIR] [--minutes M] [--dry-run]
#
# Builds the CUDA part in place for this GPU where nvcc is, calls every op once, times the ops against eager PyTorch, runs
# the kernel tests, times against torch.compile, and has compute-sanitizer watch the short calls. The most valuable
# results come first, and each is in OUTDIR before the next begins. --train then resumes a copy of the run in RUN (a
# folder of `f2d train`), and --finetune trains on from WEIGHTS (shipped weights, or a checkpoint folder such as best/ of
# a finished run), on the photographs in --data, with synthesis on the GPU. M (default 13) is the limit of the whole.
# --dry-run prints the phases, their limits in seconds and their commands.
#
# Needs python3 with torch, triton, numpy and pytest, and a C compiler for Triton; for the compiled parts also g++,
# setuptools and pybind11, and nvcc; with training also what f2d[train] installs. What is missing is named, and the rest
# runs. No network. OUTDIR receives at most eight files of at most 16 MiB: build.log, calls.log, bench.txt, bench.json,
# tests.log, compiled.json, and the trained run as run.tar.gz.00 and .01 (join them with cat).
# Exit code: 0 all passed, 1 something failed, 2 no GPU or wrong use.
set -uo pipefail

usage() {
  echo "usage: bench/gpu_check.sh OUTDIR [--train RUN | --finetune WEIGHTS] [--data DIR] [--minutes M] [--dry-run]${1:+ ($1)}" >&2
  exit 2
}

out='' run='' weights='' data='' dry='' minutes=13
while [ $# -gt 0 ]; do
  case $1 in
    --train) run=${2-}; [ -d "$run" ] || usage "--train: no folder '$run'"; shift 2 ;;
    --finetune) weights=${2-}; [ -n "$weights" ] || usage "--finetune needs weights"; shift 2 ;;
    --data) data=${2-}; [ -d "$data" ] || usage "--data: no folder '$data'"; shift 2 ;;
    --minutes) minutes=${2-}; [[ $minutes =~ ^[1-9][0-9]*$ ]] || usage "--minutes needs a whole number"; shift 2 ;;
    --dry-run) dry=1; shift ;;
    -*) usage "unknown option $1" ;;
    *) [ -z "$out" ] || usage "two output folders"; out=$1; shift ;;
  esac
done
[ -n "$out" ] || usage
[ -z "$run" ] || [ -z "$weights" ] || usage "--train and --finetune exclude each other"
[ -z "$run$weights" ] || [ -n "$data" ] || usage "training needs --data"
[ -z "$run$weights" ] || [ "$minutes" -ge 8 ] || usage "training needs --minutes 8 or more"
[ -z "$run" ] || [ -f "$run/last.ckpt" ] || usage "$run has no last.ckpt to resume"
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
[ -z "$data" ] || data=$(cd "$data" && pwd)
[ -z "$run" ] || run=$(cd "$run" && pwd)
[ ! -d "$weights" ] || weights=$(cd "$weights" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
python=${PYTHON:-python3}

if [ -z "$dry" ] && ! "$python" -c 'import torch; assert torch.cuda.is_available(), "PyTorch finds no GPU"'; then
  echo "gpu_check: PyTorch cannot use a GPU here, so nothing was checked" >&2
  exit 2
fi

export MAX_JOBS=${MAX_JOBS:-$(getconf _NPROCESSORS_ONLN)} PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
unset TRITON_INTERPRET
most=$((16 * 1024 * 1024))
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
failed=()

# phase NAME SECONDS LOG COMMAND...: continues after a failure, so that one run shows all problems. A command that is
# stopped at its limit has failed, except `train`, which always ends so. It is interrupted as by Ctrl-C, so that it can
# say how far it came. LOG is appended to.
phase() {
  local name=$1 seconds=$2 log=$3 start=$SECONDS
  shift 3
  echo "== $name, at most $seconds s"
  if [ -n "$dry" ]; then
    echo "   $*"
    return
  fi
  echo "== $name" >>"$log"
  timeout --signal=INT --kill-after=10 "$seconds" "$@" >>"$log" 2>&1
  local code=$?
  echo "   exit code $code after $((SECONDS - start)) s"
  [ "$(stat -c %s "$log")" -le $most ] || { tail -c $most "$log" >"$work/tail" && mv "$work/tail" "$log"; }
  if [ "$name" = train ] && { [ $code -eq 124 ] || [ $code -eq 137 ]; }; then
    return
  fi
  if [ $code -ne 0 ]; then
    failed+=("$name")
    tail -n 25 "$log"
  fi
}

# The limits add up to 10 + 60 + 40 + 40 + 80 + 50 + 20 = 300 s; training takes what remains of the minutes.
rm -f "$out"/{build.log,calls.log,tests.log,bench.txt,bench.json,compiled.json} "$out"/run.tar.gz.*
phase machine 10 "$out/build.log" "$python" bench/gpu_check.py machine
if [ -n "$dry" ]; then
  capability='of this GPU'
else
  capability=$("$python" -c 'import torch; print("{}.{}".format(*torch.cuda.get_device_capability()))')
fi
phase build 60 "$out/build.log" env TORCH_CUDA_ARCH_LIST="$capability" "$python" setup.py build_ext --inplace
[ -n "$dry" ] || grep 'is left out' "$out/build.log"

# one short call of every op on every backend, which also fills Triton's cache for the sanitizer
phase calls 40 "$out/calls.log" "$python" bench/gpu_check.py calls

# the benchmark stops between two cases and saves after each; the rest of a limit is for the last case
phase bench 40 "$out/bench.txt" "$python" -m bench.run --device cuda --quick --seconds 30 --providers ours,eager \
  --json "$out/bench.json"
[ -n "$dry" ] || sed -n '/^Summary/,$p' "$out/bench.txt"
phase tests 80 "$out/tests.log" env F2D_KERNELS_TEST_DEVICE=cuda "$python" bench/gpu_check.py tests 75
[ -n "$dry" ] || grep -E '^(FAILED|ERROR|skipped|stopped)|^== ' "$out/tests.log" | tail -n 60
phase compiled 50 "$out/bench.txt" "$python" -m bench.run --device cuda --quick --seconds 30 --modes both,forward \
  --providers ours,compile --json "$out/compiled.json"

sanitizer=$(command -v compute-sanitizer || ls "${CUDA_HOME:-/usr/local/cuda}"/bin/compute-sanitizer 2>/dev/null)
if [ -n "$sanitizer" ]; then
  phase sanitizer 20 "$out/calls.log" "$sanitizer" --tool memcheck --error-exitcode 9 "$python" bench/gpu_check.py short
else
  echo "== sanitizer: skipped, because compute-sanitizer is not installed"
fi

if [ -n "$run$weights" ]; then
  mkdir "$work/run"
  if [ -n "$run" ]; then
    cp "$run"/*.* "$work/run/"
    what=(train "$work/run/recipe.yaml" --resume)
  else
    what=(finetune "$weights")
  fi
  before=$(stat -c %Y "$work/run/last.ckpt" 2>/dev/null || echo 0)
  checked=$SECONDS
  [ -z "$dry" ] || checked=300
  # a minute is for packing
  phase train $((60 * minutes - 60 - checked)) "$work/run/train.log" "$python" -m f2d "${what[@]}" --data "$data" \
    -o "$work/run" -s synthesis=device -s save_every=100 --devices 1 --accelerator cuda
  if [ -z "$dry" ]; then
    after=$(stat -c %Y "$work/run/last.ckpt" 2>/dev/null || echo 0)
    [ "$after" -gt "$before" ] || { echo "   no step was saved" && failed+=("train"); }
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
