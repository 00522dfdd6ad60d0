# make install | demo | test | test-slow | test-gpu | test-faults | chaos | check | docs | release | bench
.PHONY: install demo test test-slow test-gpu test-faults chaos check docs release format bench clean

VENV ?= .venv

install:
	@.ci/install

demo: install
	@$(VENV)/bin/autosparse run --recipe demo --open

test: check
	@.ci/test

test-slow: install
	@$(VENV)/bin/python -m pytest -q -m "slow and not fault"

test-gpu: install
	@$(VENV)/bin/python -m pytest -q -m gpu tests/gpu

test-faults: install
	@.ci/halves tests/faults fault $(addprefix tests/faults/,test_bits.py test_exposure.py test_guards.py test_input.py test_several.py test_storage.py test_struck_runs.py)

chaos: install
	@$(VENV)/bin/python -m tests.faults.chaos

docs: install
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet && echo "site/index.html"

release: install # dry: nothing is uploaded
	@rm -rf dist build && $(VENV)/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .
	@$(VENV)/bin/python .ci/release.py dist/autosparse.cdx.json
	@if docker info >/dev/null 2>&1; then docker build -f docker/Dockerfile --target flow-worker -t autosparse-flow-worker .; else echo "no Docker engine here: the image was not built"; fi
	@rm -rf build && ls dist

check: install
	@.ci/check

format: install
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

bench: install
	@for name in feature_table scoring bounded training round; do $(VENV)/bin/python -m benchmarks.bench_$$name || exit 1; done

clean:
	@rm -rf $(VENV) site .pytest_cache .ruff_cache *.egg-info
