#!/usr/bin/env bash
# Set up a fresh environment and run every test: style, unit, properties, end to end, headless browser.
# VENV chooses the folder of the environment, else one of the tests' own: what is pinned here, torch above
# all, must not take the place of what the app uses. PYTHON chooses the interpreter that it is made from.
set -euo pipefail
cd "$(dirname "$0")/.."
venv="${VENV:-.venv-tests}"
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
# Everything by its hash but torch: that comes in the build this machine is given, with CUDA or without.
# Byte code is left to the imports: to compile all of every package takes longer than to install it.
awk '/^[^ #]/ { skip = /^(torch|triton)==|^(nvidia|cuda)-/ } !skip' tests/locked.txt >"$venv/locked.txt"
"$venv/bin/pip" install --quiet --no-compile --disable-pip-version-check --no-deps --require-hashes \
    --only-binary :all: --no-binary pyvips -r "$venv/locked.txt"
"$venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
    -r requirements.txt -r tests/requirements.txt -c tests/constraints.txt
[ -d "$venv/apart/torchao" ] || "$venv/bin/pip" install --quiet --no-compile --disable-pip-version-check --no-deps \
    --require-hashes --target "$venv/apart" -r tests/apart.txt
if ! command -v chromium >/dev/null && [ -z "${REFUSAL_CHROMIUM:-}" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null
    else
        "$venv/bin/python" -m playwright install chromium
        REFUSAL_CHROMIUM="$("$venv/bin/python" -c 'from playwright.sync_api import sync_playwright as p
with p() as w: print(w.chromium.executable_path)')"
        export REFUSAL_CHROMIUM
    fi
fi
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
# The types meanwhile: a minute of one core.
"$venv/bin/mypy" --cache-dir "$venv/types" >"$venv/types.txt" 2>&1 &
types=$!
# Two processes, a file of tests in one of them, a thread each: faster on two cores than two threads in one.
# What they import is compiled once, into the environment: many tests start processes of their own.
HF_HUB_OFFLINE=1 GRADIO_ANALYTICS_ENABLED=False OMP_NUM_THREADS=1 \
    PYTHONDONTWRITEBYTECODE="" PYTHONPYCACHEPREFIX="$(realpath "$venv")/bytecode" \
    "$venv/bin/python" -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder "$@"
wait "$types" || { cat "$venv/types.txt"; exit 1; }
cat "$venv/types.txt"
