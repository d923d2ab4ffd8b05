# Every target sets up .venv by itself. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.ready

.PHONY: demo test coverage-gateway test-full check bench format clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,raw]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps cvvdp ffmpeg-python future pyexr
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/hdrgen demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not full" --cov --cov-report=
	$(BIN)/python tests/coverage_gates.py

coverage-gateway: $(STAMP)
	$(BIN)/python -m pytest tests/gateway tests/faults --cov --cov-config=tests/gateway/coverage.ini --cov-report=term --cov-fail-under=95

test-full: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/vermin --target=3.9- --violations --no-tips --eval-annotations --backport typing nuke_hdrgen init.py menu.py bake.py

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)
	$(BIN)/hdrgen bench wire
	$(BIN)/hdrgen bench exr
	$(BIN)/python -m benchmarks.bench_bake
	$(BIN)/python -m benchmarks.bench_gmodiff_refine

clean:
	rm -rf .venv demo dist build
