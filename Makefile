# `make lab` opens the course, `make test` proves it; both install first what is missing. Linux and macOS;
# README.md has the same lines for Windows and for plain pip.

PYTHON ?= python3
NOTEBOOKS ?= $(wildcard notebooks/*.ipynb)
TESTS ?=
LAB_OPTIONS ?=

UV := .uv/bin/uv
BIN := .venv/bin
INSTALLED := .venv/installed

export OMP_NUM_THREADS ?= 1
export UV_HTTP_TIMEOUT ?= 300
export UV_PYTHON_DOWNLOADS := never
export UV_SYSTEM_CERTS ?= true
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV CONDA_PREFIX MPLBACKEND

.DEFAULT_GOAL := help
.PHONY: help install lab test lint format notebooks slides homework lock clean

help:
	@echo "make lab        open the course in JupyterLab"
	@echo "make test       all tests: package, notebooks, browser, style    (TESTS=tests/test_images.py for a part)"
	@echo "make install    only the environment .venv, from requirements.lock"
	@echo "make lint       only the style; make format puts it right"
	@echo "make notebooks  execute the notebooks and store their outputs    (NOTEBOOKS=notebooks/02_activations.ipynb)"
	@echo "make slides     the notebooks as decks for lectures, in runs/"
	@echo "make homework   the homework notebooks, from homework/text"
	@echo "make lock       resolve requirements.lock anew from pyproject.toml"
	@echo "make clean      remove .venv and .uv"

install: $(INSTALLED)

lab: install
	env -u OMP_NUM_THREADS $(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) --ServerApp.root_dir="$(CURDIR)" $(LAB_OPTIONS) \
	    notebooks/00_start_here.ipynb

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(TESTS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A notebook whose cell fails stays as it was. Nothing is stored that differs from one run to the next for no reason.
notebooks: install
	@set -e; for notebook in $(NOTEBOOKS); do \
	    IPYTHONDIR=.venv/ipython $(BIN)/jupyter nbconvert --to notebook --execute --inplace --log-level=WARN \
	        --ExecutePreprocessor.kernel_name=python3 --ExecutePreprocessor.timeout=600 \
	        --ExecutePreprocessor.record_timing=False "$$notebook"; \
	    $(BIN)/nbstripout --keep-output --keep-count --keep-id --keep-metadata-keys metadata.widgets \
	        --extra-keys metadata.language_info.version "$$notebook"; \
	    echo "executed $$notebook"; \
	done
	$(BIN)/python docs/tidy.py $(NOTEBOOKS)
	$(BIN)/python docs/slides.py $(NOTEBOOKS)
	$(BIN)/python docs/gallery.py
	$(BIN)/python -m pytest -q tests/test_notebooks.py

# Decks for lectures, as runs/*.slides.html (from there ../docs is found); docs/slides.py divides the notebooks. Of a panel
# its stored picture is taken: widgets would need a kernel.
slides: install
	$(BIN)/jupyter nbconvert --to slides --embed-images --no-prompt --SlidesExporter.reveal_scroll=True \
	    --NbConvertBase.display_data_priority="['text/html', 'image/png', 'image/jpeg', 'text/latex', 'text/plain']" \
	    --SlidesExporter.reveal_width=1360 --SlidesExporter.reveal_height=960 --output-dir=runs $(NOTEBOOKS)

# The homework of homework/text as notebooks for students; docs/grading.md has the commands for a class.
homework: install
	$(BIN)/python homework/make.py

lock: $(UV)
	$(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade --quiet \
	    --extra test --output-file requirements.lock pyproject.toml

clean:
	rm -rf .venv .uv

# The stamp holds the folder's name: an environment that was moved, or never finished, is built anew. Otherwise only
# what changed in the lock is installed.
$(INSTALLED): requirements.lock pyproject.toml | $(UV)
	@test "$$(cat $@ 2>&1)" = "$(CURDIR)" || $(UV) venv --quiet --clear --python "$$(command -v $(PYTHON))" .venv
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@echo "$(CURDIR)" > $@

ifneq ($(shell cat $(INSTALLED) 2>/dev/null),$(CURDIR))
.PHONY: $(INSTALLED)
endif

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv .uv || { echo "Python's venv module is needed (Debian, Ubuntu: apt install python3-venv)"; exit 1; }
	.uv/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.8
