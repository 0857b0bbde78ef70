#!/usr/bin/env bash
# Runs the README's install, `dynrefer quickstart` and the whole test suite in fresh environments,
# and prints one line of a markdown table for each:
#
#   tests/versions.sh                          every python3.9 ... python3.14 on PATH
#   tests/versions.sh 3.9 /opt/python/bin/python3
#   tests/versions.sh 3.11+transformers==4.57.6 3.11+lavis-pins
#
# An argument is a version or an interpreter, then with "+" what else to install: requirements, or
# lavis-pins, which also stands for LAVIS with its own requirements. uv is used if it is there, else
# pip; both read their usual variables (PIP_CONSTRAINT, UV_CONSTRAINT, ...).
#
#   LOGS=DIR         where to keep what was printed; default: a new temporary folder
#   PYTEST_ARGS=...  default: -n auto --dist loadfile
set -euo pipefail
cd "$(dirname "$0")/.."

logs=${LOGS:-$(mktemp -d)}
mkdir -p "$logs"
logs=$(cd "$logs" && pwd)
echo "logs: $logs" >&2

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MPLBACKEND=Agg PYTHONWARNDEFAULTENCODING=1

new_environment() { # INTERPRETER
  rm -rf "$folder/venv"
  if command -v uv; then uv venv --quiet --python "$1" "$folder/venv"; else "$1" -m venv "$folder/venv"; fi
}

install() { # REQUIREMENT...
  if command -v uv; then
    uv pip install --quiet --python "$folder/venv/bin/python" "$@"
  else
    "$folder/venv/bin/python" -m pip install --quiet "$@"
  fi
}

run() { # SPECIFICATION; prints the line of the table, fails if anything did
  local python extras=test requirements=() part
  python=${1%%+*}
  case $python in [0-9].[0-9]*) python=python$python ;; esac
  while IFS= read -r part; do
    case $part in
      "") ;;
      lavis-pins) extras=test,lavis-pins ;;
      *) requirements+=("$part") ;;
    esac
  done < <(tr + '\n' <<<"${1#"${1%%+*}"}")

  if ! { new_environment "$python" && install ".[$extras]" ${requirements[@]+"${requirements[@]}"} &&
    { [ "$extras" != test ] || install --no-deps salesforce-lavis==1.0.2; }; } >&3 2>&1; then
    echo "| $1 | does not install |"
    return 1
  fi
  local quickstart=passed failed=0
  mkdir -p "$folder/work"
  (cd "$folder/work" && env -u PYTHONWARNDEFAULTENCODING "$folder/venv/bin/dynrefer" quickstart) \
    >&3 2>&1 || { quickstart=failed failed=1; }
  rm -f "$folder/junit.xml"
  # shellcheck disable=SC2086
  "$folder/venv/bin/python" -m pytest -q --junitxml "$folder/junit.xml" \
    ${PYTEST_ARGS:--n auto --dist loadfile} >&3 2>&1 || failed=1
  "$folder/venv/bin/python" - "$folder/junit.xml" "$extras" "$quickstart" <<'LINE'
import platform
import sys
import xml.etree.ElementTree as xml
from importlib.metadata import version
from pathlib import Path

file, extras, quickstart = sys.argv[1:]
versions = [version(name) for name in ("torch", "transformers", "numpy")]
pins = "its own pins" if "lavis-pins" in extras else "without its pins"
results = ["no result"] * 3
if Path(file).is_file():
    suite = xml.parse(file).getroot().find("testsuite")
    counts = {key: int(suite.get(key)) for key in ("tests", "failures", "errors", "skipped")}
    bad = counts["failures"] + counts["errors"]
    results = [str(n) for n in (counts["tests"] - bad - counts["skipped"], bad, counts["skipped"])]
cells = [platform.python_version(), *versions, pins, quickstart, *results]
print("| " + " | ".join(cells) + " |")
LINE
  return $failed
}

if [ $# -eq 0 ]; then
  for minor in 9 10 11 12 13 14; do
    if command -v "python3.$minor" >/dev/null; then set -- "$@" "3.$minor"; fi
  done
fi
echo "| Python | torch | transformers | numpy | LAVIS | quickstart | passed | failed | skipped |"
echo "|---|---|---|---|---|---|---|---|---|"
status=0
for specification; do
  run "$specification" 3>"$logs/$(tr -c 'A-Za-z0-9.=\n' _ <<<"$specification").log" || status=1
done
exit $status
