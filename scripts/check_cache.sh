#!/usr/bin/env bash
# Writes a cache file and the same features as plain values, and has Python's own safetensors compare the two, bit by bit.
# Then reads files of both commands with scripts/actbench_files.py for numpy, torch and scikit-learn, follows each sample back
# to its row of the data set, and compares the layer numbering with transformers.
#
# Needs python3 with pip; packages are installed, in the versions of requirements.txt, into target/python, once. torch and
# transformers take gigabytes: they are installed if REQUIRE_TORCH is set, and what needs them is else skipped, visibly. PYTHON
# names an interpreter that has the packages already.
set -euo pipefail
cd "$(dirname "$0")/.."
actbench=${ACTBENCH:-target/release/actbench}
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT

python=${PYTHON:-target/python/bin/python}
if [ -z "${PYTHON:-}" ]; then
  [ -x "$python" ] || python3 -m venv target/python
  version() { grep -E "^($1)==" scripts/requirements.txt; }
  pip() { "$python" -m pip install --quiet --disable-pip-version-check "$@"; }
  # shellcheck disable=SC2046 # One word for each package.
  "$python" -c 'import numpy, safetensors, sklearn' 2>/dev/null || pip $(version 'numpy|safetensors|scikit-learn')
  if [ -n "${REQUIRE_TORCH:-}" ] && ! "$python" -c 'import torch, transformers' 2>/dev/null; then
    # The wheel for CPUs is a tenth of that of the package index, which brings CUDA; not every network reaches its index.
    pip --index-url https://download.pytorch.org/whl/cpu "$(version torch)" 2>/dev/null || pip "$(version torch)"
    pip "$(version transformers)"
  fi
fi

for dtype in bf16 fp16 fp32; do
  settings=(--samples 60 --dtype "$dtype")
  "$actbench" cache "${settings[@]}" --out "$directory/$dtype.safetensors"
  "$actbench" features "${settings[@]}" --out "$directory/$dtype.features"
  "$python" scripts/check_cache_python.py "$directory/$dtype.safetensors" --features "$directory/$dtype.features"
done

# The check itself has to be able to fail: a flipped bit of the last value must be seen.
"$python" - "$directory/bf16.safetensors" <<'PYTHON'
import json
import sys

with open(sys.argv[1], "r+b") as file:
    header = int.from_bytes(file.read(8), "little")
    end = json.loads(file.read(header))["layer.0"]["data_offsets"][1]
    file.seek(8 + header + end - 2)
    byte = file.read(1)[0]
    file.seek(8 + header + end - 2)
    file.write(bytes([byte ^ 1]))
PYTHON
if "$python" scripts/check_cache_python.py "$directory/bf16.safetensors" --features "$directory/bf16.features" 2>/dev/null; then
  echo 'FAILED: a flipped bit was not seen' >&2
  exit 1
fi
echo 'a flipped bit is seen'

"$python" scripts/check_files_python.py "$actbench" "$directory"
if "$python" -c 'import torch, transformers' 2>/dev/null; then
  "$python" scripts/check_layers.py "$actbench" "$directory"
elif [ -n "${REQUIRE_TORCH:-}" ]; then
  echo 'FAILED: torch or transformers cannot be imported' >&2
  exit 1
else
  echo 'skipped: the comparison of layer numbers with transformers, which is not installed; REQUIRE_TORCH=1 installs it'
fi
