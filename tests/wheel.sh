#!/usr/bin/env bash
# Build the wheel, install it into a bare environment (the core's dependencies only), import and use it.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
.venv/bin/python -m build --wheel --outdir "$work/dist" . >/dev/null
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "$work"/dist/*.whl
cd "$work"
venv/bin/python - <<'PY'
import posegrad as pg
from posegrad.testing import random_scene
scene = random_scene(4, 8, noise=1.0)
assert bool(pg.solve_pnp(scene.points2d, scene.points3d, scene.K).ok.all())
print("wheel: imported and solved, version", pg.__version__)
PY
set +e
message=$(venv/bin/posegrad train 2>&1); code=$?
set -e
echo "posegrad train without the extra: $message (exit code $code)"
[ "$code" = 2 ] && [[ "$message" == *"pip install 'posegrad[train]'"* ]]
