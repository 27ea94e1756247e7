#!/usr/bin/env bash
# The paper's experiments on one lent GPU: a smoke of 90 seconds, then ten minutes.
#
#   benches/gpu/run.sh smoke                      every part in miniature, and the throughput at the paper's size
#   benches/gpu/run.sh full                       8.5 minutes of training; give the command ten
#   benches/gpu/run.sh full --weights DIR         a later call: what an earlier one left is not trained again
#   benches/gpu/run.sh full --seeds 1             another seed
#
# OUT: folder of the at most eight files that come back (gpu-results). BUDGET_MIN: minutes. PYTHON: the interpreter with
# torch (python3). SCRATCH: where the cohort lies, 25 GB for `full`; the same command in the same place goes on where it
# was cut off. Without a GPU the miniature is trained instead.
set -euo pipefail
cd "$(dirname "$0")/../.."
mode=${1:?usage: benches/gpu/run.sh smoke|full [options of accelkd reproduce]}
shift
PYTHON=${PYTHON:-python3}
OUT=${OUT:-gpu-results}
mkdir -p "$OUT"
exec > >(tee -a "$OUT/run.log") 2>&1

if [ -z "${SCRATCH:-}" ]; then
  SCRATCH=/tmp
  # In memory where there is plenty: the cohort is written once and read at once
  if [ "$(df --output=avail -k /dev/shm 2>/dev/null | tail -1 || echo 0)" -gt 40000000 ]; then SCRATCH=/dev/shm; fi
fi
SCRATCH=$SCRATCH/accelkd-gpu
export TORCHINDUCTOR_CACHE_DIR=$SCRATCH/compiled PYTHONUNBUFFERED=1

# `import rust_dsp` alone finds the folder of its sources
if ! "$PYTHON" -c 'import annotated_types, cyclopts; from rust_dsp import Plan' 2>/dev/null; then
  wheels=(benches/gpu/wheels/*.whl)
  if [ ! -f "${wheels[0]}" ]; then
    echo "there are no wheels: run benches/gpu/pack.sh first, and let benches/gpu/wheels travel" >&2
    exit 2
  fi
  rm -rf "$SCRATCH/site"
  "$PYTHON" -m pip install --quiet --no-index --no-deps --target "$SCRATCH/site" "${wheels[@]}"
fi
export PYTHONPATH=$PWD:$SCRATCH/site${PYTHONPATH:+:$PYTHONPATH}

case $mode in
  smoke) preset=gpu-miniature budget=${BUDGET_MIN:-0.6} ;;
  full) preset=gpu budget=${BUDGET_MIN:-8.5} ;;
  *) echo "there is no mode '$mode': smoke or full" >&2; exit 2 ;;
esac
throughput=()
if ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "There is no GPU: the miniature is trained."
  preset=gpu-miniature throughput=(--miniature)
fi

# Where the GPU answers no more (75), a new process goes on, if a fifth of the time is left
started=$SECONDS
while :; do
  left=$("$PYTHON" -c "print($budget - ($SECONDS - $started) / 60)")
  status=0
  "$PYTHON" -m accelkd.cli --home "$SCRATCH/$preset" reproduce \
    --preset "$preset" --budget-min "$left" --out "$OUT" "$@" || status=$?
  if [ $status -ne 75 ] || "$PYTHON" -c "import sys; sys.exit($SECONDS - $started < 48 * $budget)"; then break; fi
done

if [ "$mode" = smoke ]; then
  timeout "${THROUGHPUT_S:-60}" "$PYTHON" benches/throughput.py "${throughput[@]}" || status=$?
fi
ls -l "$OUT"
exit $status
