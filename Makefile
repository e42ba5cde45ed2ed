# pycni: everything is one of these targets; a bare `make` lists them.

PYTHON ?= python3
BINDIR ?= /opt/cni/bin
CONFDIR ?= /etc/cni/net.d
PREFIX ?= /opt/pycni
# SBINDIR=/usr/local/sbin links the pycni command there; CONF="10-bridge ..." copies networks of conf/.
SBINDIR ?=
CONF ?=
# Arguments for pytest: make test ARGS="plugins/portmap -x"
ARGS ?=

PLUGINS := $(wildcard plugins/*)
empty :=
space := $(empty) $(empty)
export MYPYPATH := build:$(subst $(space),:,$(strip $(PLUGINS)))

python := .venv/bin/python
say = @if [ -t 1 ]; then printf '\033[1;36m==> %s\033[0m\n' "$(1)"; else echo "==> $(1)"; fi
install = $(python) build/install.py --bindir "$(BINDIR)" --confdir "$(CONFDIR)" --prefix "$(PREFIX)" \
	--destdir "$(DESTDIR)" $(if $(SBINDIR),--sbindir "$(SBINDIR)")

.DEFAULT_GOAL := help
.PHONY: help demo test lint packages install uninstall clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/stamp ## attach two containers in throw-away namespaces and show each step
	@$(python) build/demo.py

test: lint ## lint, types and all tests; installs what they need where it may
	$(call say,tests)
	@$(python) -m pytest -q -n auto --dist loadfile $(ARGS)

lint: .venv/stamp ## rules, formatting and types
	$(call say,ruff: rules and formatting)
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	$(call say,mypy: types)
	@$(python) -m mypy

packages: ## install the Debian packages that tests need, or say which are missing
	$(call say,system packages)
	@build/system-packages.sh

# The links of a virtual environment go to the folders of plugins that there are now.
.venv/stamp: pyproject.toml Makefile build/lock/dev.txt $(wildcard plugins/*/plugin.toml) | packages
	$(call say,virtual environment from build/lock/dev.txt)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	@[ -x $(python) ] || $(PYTHON) -m venv .venv
	@$(python) -m pip install --quiet --disable-pip-version-check --require-hashes -r build/lock/dev.txt
	@printf '%s\n' '$(CURDIR)' '$(CURDIR)/build' $(PLUGINS:%='$(CURDIR)/%') \
		> "$$($(python) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/pycni-dev.pth"
	@touch $@

install: .venv/stamp ## put the plugins into BINDIR, all that they import into PREFIX
	@$(install) $(CONF:%=--conf %)

uninstall: .venv/stamp ## remove what install has put there
	@$(install) --uninstall

clean: ## remove the virtual environment, caches and what was built
	rm -rf .venv dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
