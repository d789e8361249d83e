# FM Desk. `make run` starts the desk, `make test` runs every test; both set up what they need.
PYTHON ?= python3
PORT ?= 8501
ADDRESS ?= 127.0.0.1
BIN := .venv/bin

.PHONY: run test check bench clean setup setup-tests

run: setup  ## start the desk on http://127.0.0.1:8501
	@echo "FM Desk: http://$(ADDRESS):$(PORT)  (stop with Ctrl-C)"
	@exec $(BIN)/streamlit run app.py --server.port $(PORT) --server.address $(ADDRESS)

test: setup-tests  ## every test: fast, slow, browser
	$(BIN)/python -m pytest

check: setup-tests  ## the fast loop: lint, architecture, fast tests
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -q -m "not slow and not browser"

bench: setup  ## the figures of benchmarks/, against a named peer in the same run (an hour or more on two cores)
	$(BIN)/python -m benchmarks.intent --full
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.serving_api --out benchmarks/results/serving-api-$$(date +%F).json

clean:  ## remove the environment and caches; never your data (.fm/)
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup:
	@$(PYTHON) .dev/setup_env.py

setup-tests:
	@$(PYTHON) .dev/setup_env.py --tests
