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
if ! "$python" -c 'import importlib.metadata as m; m.version("maquette")' 2>/dev/null; then # not installed: say its version
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
  mkdir "$site/maquette-$version.dist-info"
  printf 'Metadata-Version: 2.1\nName: maquette\nVersion: %s\n' "$version" >"$site/maquette-$version.dist-info/METADATA"
fi
PYTHONUNBUFFERED=1 PYTHONPATH="$PWD/src:$site${PYTHONPATH:+:$PYTHONPATH}" "$python" -m "${MODULE:-tools.gpu}" "$@"
