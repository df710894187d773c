# The two commands of the README are `make report` and `make test`; every target sets up what it needs.
PYTHON ?= python3
V := .venv/bin
EXTRA := $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
PROFILE ?=
SWEEP ?=
export MARSNB_DATA

.PHONY: setup hooks report test soak book lab bench lock clean
setup: .venv/.ready

.venv/.ready: pyproject.toml requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "marsnb needs Python 3.11 or newer; name it with PYTHON=..." >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "marsnb needs Python 3.11 or newer: $(PYTHON) is older; name one with PYTHON=..." >&2; exit 2; }
	test -x $(V)/python || $(PYTHON) -m venv .venv
	$(V)/python -m pip install --quiet --constraint requirements.lock --editable '.[$(EXTRA),dev]'
	@$(MAKE) --no-print-directory hooks
	@touch $@

hooks:                   ## nbdev's git hooks, for this clone alone: notebooks are merged cell by cell, and trusted after a merge (nbdev_install_hooks would also write to the home folder, and fails in a worktree)
	@test -e .git && git rev-parse --git-dir >/dev/null 2>&1 || exit 0; \
	git config --local merge.nbdev-merge.name 'resolve conflicts with nbdev_fix'; \
	git config --local merge.nbdev-merge.driver "$(V)/nbdev_merge %O %A %B %P"; \
	git config core.hooksPath >/dev/null && exit 0; \
	hook=$$(git rev-parse --git-path hooks)/post-merge; mkdir -p "$${hook%/*}"; \
	test -e "$$hook" || { printf '#!/bin/sh\ntest ! -x $(V)/nbdev_trust || $(V)/nbdev_trust\n' > "$$hook" && chmod +x "$$hook"; }

report: setup            ## run SWEEP (default: a row of each team) in PROFILE (default: what SWEEP says, else quick), then build the report: book/_build/html/index.html
	$(V)/marsnb report $(if $(PROFILE),--profile $(PROFILE)) $(SWEEP)

book: setup              ## build the report from the records that are there
	$(V)/marsnb book

test: setup              ## notebooks in step with the package, notebook tests, then what crosses notebooks
	$(V)/python -m pytest -q tests

soak: setup              ## what is too slow for `make test`: every row end to end, many runs, kills; at most 45 minutes on two cores
	$(V)/python -m pytest -q -rP --durations 12 --numprocesses 2 -m soak tests

lab: setup               ## JupyterLab, with the project's kernel
	$(V)/jupyter lab nbs

bench: setup             ## speed and memory as ratios, measured side by side
	$(V)/python -m marsnb.bench

lock: setup              ## write requirements.lock anew from what is installed here
	$(V)/python -m pip freeze --all --exclude-editable --exclude marsnb --exclude pip > requirements.new
	LC_ALL=C sort -f requirements.new > requirements.lock && rm requirements.new

clean:                   ## away with what `make` makes again; trained networks, in runs/, stay
	rm -rf .venv book/_build build *.egg-info
