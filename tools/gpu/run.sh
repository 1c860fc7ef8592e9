#!/usr/bin/env bash
# On the machine with the card: installs the carried wheels into a throw-away folder and runs every part.
#   bash tools/gpu/run.sh --out results [--rehearse] [--only PART,PART]
# MODULE (tools.gpu) may be another program of the checkout, such as benchmarks.train_step;
# WHEELS (.whl) is the folder of wheels, PYTHON (python3) the interpreter that holds PyTorch.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3} wheels=${WHEELS:-.whl}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if compgen -G "$wheels/*.whl" >/dev/null; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --disable-pip-version-check --upgrade \
    --target "$site" "$wheels"/*.whl
fi
PYTHONUNBUFFERED=1 PYTHONPATH="$PWD/src:$site${PYTHONPATH:+:$PYTHONPATH}" "$python" -m "${MODULE:-tools.gpu}" "$@"
