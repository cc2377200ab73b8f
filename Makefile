# Each target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
LINTERS := $(VENV)-lint/ready
SITE := $(VENV)-site/ready

help:  ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: $(READY) $(LINTERS) $(SITE)  ## Run all tests; on Debian as root, with a real registry, engine and cloud-init
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

check: $(READY) $(LINTERS)  ## Lint, check types, lint templates and workflows
	$(BIN)/ruff check
	$(BIN)/ruff format --check --quiet || { $(BIN)/ruff format --diff; exit 1; }
	$(BIN)/mypy
	$(BIN)/python scripts/lint_templates.py templates/*
	$(VENV)-lint/bin/zizmor --offline --quiet .github

templates: $(READY)  ## Render the committed templates again
	$(BIN)/python scripts/write_templates.py

demo: $(READY)  ## Show a job that fails, the reason and the fix, on an embedded AWS
	@$(BIN)/python scripts/demo.py

bench: $(READY)  ## Measure commands, boot step and fleet, beside the alternatives
	@$(BIN)/python scripts/bench.py $(ARGS)

docs: $(READY)  ## Write the generated pages, pictures and terminal screens again
	$(BIN)/python scripts/write_reference.py
	$(BIN)/python scripts/write_troubleshooting.py
	$(BIN)/python scripts/fleet.py
	$(BIN)/python scripts/draw_doctor.py
	PYTHONPATH=tests $(BIN)/python scripts/record_screens.py

site: $(SITE)  ## Build the documentation as a site, in site/; a broken link is an error
	rm -rf site
	$(VENV)-site/bin/sphinx-build --fail-on-warning --keep-going --fresh-env --quiet docs site

dist: $(READY) $(LINTERS)  ## Build the sdist and the wheel of a release, and check their metadata
	rm -rf dist
	$(BIN)/python -m build
	$(VENV)-lint/bin/twine check --strict dist/*
	$(VENV)-lint/bin/pyroma --min 10 --skip-tests AuthorEmail .  # there is no address to write to

deploy-time: $(READY)  ## Time what batchreg adds to a deploy, beyond what AWS takes
	$(BIN)/python scripts/time_deploy.py

$(READY): setup.cfg pyproject.toml scripts/debian_packages.sh
	@scripts/debian_packages.sh
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "batchreg needs Python 3.11 or newer: make PYTHON=python3.13 ..." >&2; exit 1; }
	@echo "Setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# Apart from the tools above: they need other versions of what these need.
$(VENV)-%/ready: scripts/%_requirements.txt
	@echo "Setting up $(@D)"
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
	@$(@D)/bin/uv pip install --quiet --no-deps --python $(@D)/bin/python -r $<
	@touch $@

.PHONY: help test check templates demo bench docs site dist deploy-time
