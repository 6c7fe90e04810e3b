# Everything runs from .venv, which tools/setup.py makes with the system's python3 and nothing else.
PYTHON ?= python3
RUN := .venv/bin/python
MANAGE := $(RUN) manage.py

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev up start stop status backup restore admin-password rotate-key doctor test check fix demo bench chaos docs

help: ## List what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:
	@$(PYTHON) tools/setup.py runtime

setup-dev:
	@$(PYTHON) tools/setup.py dev

up: setup ## Set up and start everything here; Ctrl-C stops it (runs go on)
	@exec $(MANAGE) up

start: setup ## The same in the background
	@exec $(MANAGE) start

stop: setup ## Stop what `up` or `start` started (runs go on)
	@exec $(MANAGE) stop

status: setup ## Show each service
	@exec $(MANAGE) status

doctor: setup ## Check everything and say what to do about what is wrong
	@exec $(MANAGE) doctor

admin-password: setup ## Set and print a new admin password
	@exec $(MANAGE) admin_password

rotate-key: setup ## Make a new master key and seal everything under it; runs go on
	@exec $(MANAGE) rotate_key $(ARGS)

backup: setup ## Back up database, logs and keys while runs run: make backup TO=folder
	@exec $(MANAGE) backup "$(or $(TO),$(error say where to: make backup TO=folder))"

restore: setup ## Make a new home from a backup: RUNYARD_HOME=new make restore FROM=folder
	@exec $(RUN) -m console.services.backup "$(or $(FROM),$(error say from where: make restore FROM=folder))"

test: setup-dev ## Set up and run all tests, with a real PostgreSQL, Valkey and Chromium
	@RUNYARD_CHROMIUM="$$($(PYTHON) tools/chromium.py)" && export RUNYARD_CHROMIUM && \
	exec $(RUN) -m pytest -n 2 $(ARGS)

check: setup-dev ## Lint, formats, types, layers, templates, migrations, API schema
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy .
	.venv/bin/lint-imports
	@find templates -name '*.html' -print0 | xargs -0 -r .venv/bin/djade --check --target-version 5.2
	$(MANAGE) check
	@echo "$(MANAGE) makemigrations --check"; mkdir -p .cache; $(MANAGE) makemigrations --check --dry-run \
	2> .cache/makemigrations.log || { cat .cache/makemigrations.log >&2; exit 1; }
	@$(MANAGE) export_schema > .cache/schema.graphql
	@diff -u console/schema.graphql .cache/schema.graphql || \
	{ echo "console/schema.graphql is not what the code says: make fix" >&2; exit 1; }

fix: setup-dev ## Repair what `check` can repair
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .
	find templates -name '*.html' -print0 | xargs -0 -r .venv/bin/djade --target-version 5.2
	$(MANAGE) export_schema > .cache/schema.graphql && cp .cache/schema.graphql console/schema.graphql

demo: setup ## Fill a running console with two teams, runs in every status and live logs
	@exec $(MANAGE) seed_demo

chaos: setup-dev ## Disturb a whole console of its own, and check that nothing is lost
	@exec $(RUN) -m chaos $(ARGS)

bench: setup ## Measure, against a peer in the same run; ARGS=throughput for one, see bench/
	@exec $(RUN) -m bench $(ARGS)

docs: setup-dev ## Make the pictures and check the links of README and docs/
	@RUNYARD_CHROMIUM="$$($(PYTHON) tools/chromium.py)" && export RUNYARD_CHROMIUM && exec $(RUN) -m tools.docs
