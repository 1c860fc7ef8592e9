#!/usr/bin/env bash
# Fetches the wheels of wheels.txt for a bare Linux machine without network: bash tools/gpu/wheels.sh [FOLDER]
# PYTHON_VERSION is that machine's (3.12); the folder travels with the checkout and run.sh installs from it.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-.whl}
python=${PYTHON:-.venv/bin/python}
mkdir -p "$folder"
platforms=()
for name in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do platforms+=(--platform "${name}_x86_64"); done
grep -v '^#' tools/gpu/wheels.txt | while read -r package; do
  # constraints.txt spells some names with the other dash
  pinned=$(tr '_' '-' <constraints.txt | grep -i "^${package//_/-}==") || { echo "constraints.txt lacks $package"; exit 1; }
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --python-version "${PYTHON_VERSION:-3.12}" --implementation cp "${platforms[@]}" -d "$folder" "$pinned"
done
du -sh "$folder"
