# make demo    the main job, end to end: shipped network -> .tflite files -> answers, times and one HTML report
# make test    every test; ARGS="-k wall" passes words on to pytest
# make lint    ruff and mypy
# make wheel   dist/: the wheel and the source archive
# Each makes .venv first when it is missing or older than what it is made from; wheel makes .venv-wheel, which is small.
# PYTHON=python3.12 chooses a Python.

PYTHON ?=
export PYTHON
VENV := .venv
READY := $(VENV)/.ready

.PHONY: demo test lint wheel
.DELETE_ON_ERROR:

demo: $(READY)
	$(VENV)/bin/edge-ran demo --force

test: $(READY)
	scripts/test $(ARGS)

lint: $(READY)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

wheel: $(VENV)-wheel/.ready
	$(VENV)-wheel/bin/python -m hatchling build

$(READY): scripts/setup pyproject.toml constraints.txt
	@scripts/setup
	@touch $@

$(VENV)-wheel/.ready: scripts/setup constraints.txt
	@scripts/setup wheel
	@touch $@
