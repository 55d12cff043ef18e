.DEFAULT_GOAL := help
.PHONY: help book lab pdf course gpu test lint bench edition edition-status lock clean env
export PYTHON
BIN := .venv/bin

help:  ## what can be made
	@awk -F ':.*## *' '/^[a-z-]+:.*##/ {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

book: env  ## show the published book at once, then run every chapter (preset quick) and put each in its place
	$(BIN)/lth run --preset quick --out build/edition --site build/site

lab: env  ## open the chapters in JupyterLab, to change a cell and run it
	@$(BIN)/python -c 'import jupyterlab, jupyterlab_myst' 2>/dev/null || $(BIN)/python -m pip install \
	    --disable-pip-version-check -q --no-build-isolation -c requirements.lock -e '.[lab]'
	$(BIN)/jupyter-lab notebooks

pdf: env  ## the whole published book as one file, build/book.pdf (needs chromium)
	$(BIN)/lth book --pdf build/book.pdf

course: env  ## the six sessions, run from their solutions: notebooks for students and teachers, and slides
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation -c requirements.lock -e '.[course]'
	$(BIN)/lth course build

gpu: env  ## with a GPU for half an hour (or MINUTES=…): check it, measure it, run what decides most claims
	$(BIN)/lth gpu --minutes $(or $(MINUTES),30)

test: env  ## the tests, as many at a time as there are cores (LTH_THOROUGH=1: the slowest too)
	$(BIN)/pytest tests -n $$(nproc) --dist worksteal

lint: env  ## style and unused code
	$(BIN)/ruff check .

bench: env  ## speed against plain PyTorch loops, which the book then shows
	$(BIN)/python benchmarks/train.py --save
	@for file in $(filter-out benchmarks/train.py,$(wildcard benchmarks/*.py)); do $(BIN)/python $$file || exit 1; done

edition: env  ## compute the published edition in nights, in the background; goes on where it was
	$(BIN)/lth edition

edition-status: env  ## which networks of it are there, which are missing, how many hours are left
	$(BIN)/lth edition --status

lock: env  ## write requirements.lock anew from the pins of pyproject.toml
	$(BIN)/python -m pip install -q --disable-pip-version-check --target build/uv uv==0.13.8
	build/uv/bin/uv pip compile pyproject.toml --extra cluster --extra dev --universal --python-version 3.11 --fork-strategy fewest \
	    --no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" -q -o requirements.lock

clean:  ## remove what was built (the environment, the runs in .lth and the data stay)
	rm -rf build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

env:
	@bash scripts/setup.sh
