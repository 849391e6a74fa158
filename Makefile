# The same commands locally and in CI: `.ci/run` calls `make check test`.
.PHONY: setup run demo check test test-unit test-e2e bench lock wheel clean

BIN := .venv/bin
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-header --no-annotate
STAMP := .venv/.installed

setup: $(STAMP)

# pip checks every wheel against the hashes in the lock file; uv only resolves that file (make lock).
# --no-deps: the lock is whole, and pip would look for newer releases of what extras name, and fail.
# setuptools warns of every editable installation, as if something were wrong.
$(STAMP): requirements.lock pyproject.toml scripts/find-python
	@python=$$(scripts/find-python) && rm -rf .venv && echo "setting up .venv with $$($$python --version)" && $$python -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: setup
	@$(BIN)/keybroker demo --serve --directory .demo

demo: setup
	@$(BIN)/keybroker demo

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: test-unit test-e2e

test-unit: setup
	$(BIN)/pytest -m "not e2e" --ignore=tests/attacks --ignore=tests/clients --ignore=tests/e2e -n 2 -q

# By file: the tests of one share a running program. tests/conftest.py says in which order. Three at a
# time keep two cores busy: these tests wait for processes and clocks much of their time.
test-e2e: setup
	@scripts/ensure-chromium
	@scripts/ensure-bubblewrap
	@scripts/ensure-shells
	@scripts/ensure-clients
	$(BIN)/pytest -m e2e -n 3 --dist loadfile --no-loadscope-reorder -q

bench: setup
	$(BIN)/python -m tests.bench $(BENCH)

# runtime.lock is the part of it that the program needs to run.
lock: setup
	$(LOCK) --group dev pyproject.toml -o requirements.lock
	$(LOCK) --constraints requirements.lock pyproject.toml -o runtime.lock
	$(LOCK) tests/clients/requirements.in -o tests/clients/requirements.lock
	cd tests/clients/node && npm install --package-lock-only --ignore-scripts --no-audit --no-fund --silent

wheel: setup
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

clean:
	rm -rf .venv .clients .demo build dist *.egg-info
