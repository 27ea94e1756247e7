#!/usr/bin/env bash
# Collect what has to travel to a GPU machine without network, and say what it is. Everything else that the run needs is
# in the repository and in the machine's own Python: torch, numpy, scipy, scikit-learn, threadpoolctl, pyarrow,
# safetensors. Of the base dependencies `accelkd reproduce` leaves out Pydantic alone.
set -euo pipefail
cd "$(dirname "$0")/../.."
make --quiet setup
rm -rf benches/gpu/wheels
.venv/bin/uv build --quiet --wheel --out-dir benches/gpu/wheels rust_dsp
rm -f benches/gpu/wheels/.gitignore
# `uv` cannot download alone, and an environment that it made has no pip
.venv/bin/uv tool run --quiet pip download --quiet --disable-pip-version-check --dest benches/gpu/wheels \
  --python-version 3.12 --only-binary :all: --constraint constraints.txt annotated-types cyclopts
echo "These travel, beside the tracked files of the repository ($(git ls-files -z | xargs -0 du --total --bytes | tail -1 | numfmt --field 1 --to iec | cut -f 1)):"
du --bytes benches/gpu/wheels/*.whl | numfmt --field 1 --to iec
echo "There: OUT=results benches/gpu/run.sh smoke, then OUT=results benches/gpu/run.sh full"
