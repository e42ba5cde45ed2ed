# pycni: everything is one of these targets; a bare `make` lists them.

PYTHON ?= python3
# The interpreter of the bundle: a distribution's is linked in one piece, which is faster than with a libpython.
FROZEN_PYTHON ?= $(or $(shell /usr/bin/python3 -c 'import sys; print(sys.executable * (sys.version_info >= (3, 11)))'),$(PYTHON))
BINDIR ?= /opt/cni/bin
CONFDIR ?= /etc/cni/net.d
# Below BINDIR, so that whoever copies or mounts that has all.
PREFIX ?= $(BINDIR)/pycni
# SBINDIR=/usr/local/sbin links the pycni command there; CONF="10-bridge ..." copies networks of conf/.
SBINDIR ?=
CONF ?=
DESTDIR ?=
# UNITS=no installs no systemd units, UNITS=yes fails where it cannot; SELFTEST=no does not try plugins out.
UNITS ?= auto
SELFTEST ?=
# ATTACHED=detach or ATTACHED=leave, for attachments that no other suite can delete after make uninstall.
ATTACHED ?=
# Arguments for pytest: make test ARGS="plugins/portmap -x"
ARGS ?=
# make test PLUGIN=ptp runs the tests of one plugin only: its name or its folder.
PLUGIN ?=
# make test FULL=1, as .ci/run: with the variants that a run of all tests leaves out otherwise.
FULL ?=
# make test also runs what needs a second kernel, if there can be one: auto; required fails without one; no.
SECOND_KERNEL ?= auto
# make test-kernel ALL=1 runs the tests in namespaces that this kernel could run, too.
ALL ?=
# make test-load: how often, beside how many processes that keep a core busy.
RUNS ?= 5
LOAD ?= 8
# How long make soak goes on, and what make fuzz tries.
SECONDS ?= 300
CASES ?= 10000
SEED ?= 1
# QUICK=1 measures less of all; BENCH_BINDIR is one more suite to compare, BENCH_OURS is ours as installed.
QUICK ?=
BENCH_BINDIR ?=
BENCH_OURS ?=

# A misspelt variable would leave the right one at its default, without a word.
known := PYTHON FROZEN_PYTHON CC BINDIR CONFDIR PREFIX SBINDIR CONF DESTDIR UNITS SELFTEST ATTACHED \
	ARGS PLUGIN FULL SECOND_KERNEL ALL RUNS LOAD SECONDS CASES SEED QUICK BENCH_BINDIR BENCH_OURS
given := $(foreach each,$(.VARIABLES),$(if $(findstring command line,$(origin $(each))),$(each)))
unknown := $(filter-out $(known) MAKEFLAGS MAKEOVERRIDES SHELL,$(given))
$(if $(unknown),$(error unknown variable $(unknown); the known ones are $(known)))

# So would a misspelt value.
$(if $(filter-out no yes,$(SELFTEST)),$(error SELFTEST is "$(SELFTEST)": it is yes or no))
$(if $(filter-out auto required no,$(SECOND_KERNEL)),\
	$(error SECOND_KERNEL is "$(SECOND_KERNEL)": it is auto, required or no))

PLUGINS := $(wildcard plugins/*)
empty :=
space := $(empty) $(empty)
export MYPYPATH := build:$(subst $(space),:,$(strip $(PLUGINS)))

# With it each of many processes would compile the same sources again.
unexport PYTHONDONTWRITEBYTECODE

# Two trees may build at once: PyInstaller removes what it finds in its folder.
export PYINSTALLER_CONFIG_DIR := $(CURDIR)/dist/pyinstaller

python := .venv/bin/python
# Some workers for each core; a test that is done makes place for the next one, whatever file that is in.
pytest := $(python) -m pytest -q -n auto --dist load --no-loadscope-reorder
brief = $(if $(FULL)$(PLUGIN)$(ARGS),,--brief)
# A selection of tests does not wait for a kernel to be built.
kernels = $(python) -m tests.kernel.run \
	--second $(if $(PLUGIN)$(ARGS),$(patsubst auto,cached,$(SECOND_KERNEL)),$(SECOND_KERNEL))
freezer := dist/venv/bin/python
say = @if [ -t 1 ]; then printf '\033[1;36m==> %s\033[0m\n' "$(1)"; else echo "==> $(1)"; fi
places = --prefix "$(PREFIX)" --confdir "$(CONFDIR)" --destdir "$(DESTDIR)"

.DEFAULT_GOAL := help
.PHONY: help demo test listed-tests test-kernel test-quick test-load test-bundle test-single soak fuzz lint pages bench packages bundle install uninstall dist clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/stamp bundle ## attach two containers in throw-away namespaces and show each step
	@$(python) build/demo.py

ifeq ($(PLUGIN),)
test: .venv/stamp dist/venv/stamp ## lint, types and tests; installs what they need where it may; FULL=1: all; PLUGIN=ptp: one plugin's
	@$(MAKE) --no-print-directory --jobs --output-sync=target lint bundle listed-tests
	$(call say,tests)
	@$(kernels) --listed dist/tests.jsonl both -- $(pytest) $(brief) $(ARGS)
else
test: .venv/stamp
	$(call say,tests of $(PLUGIN))
	@$(kernels) both -- $(pytest) --plugin "$(PLUGIN)" $(ARGS)
endif

test-kernel: .venv/stamp bundle ## the tests that this kernel cannot run, or ARGS=, or ALL=1, on a second one: docs/testing.md
	$(call say,tests on the second kernel)
	@$(python) -m tests.kernel.run --second required $(if $(ARGS)$(ALL),--all) second -- $(python) -m pytest -q $(if $(ARGS)$(ALL),--thorough) $(if $(ALL),plugins tests/netns) $(ARGS)

test-quick: lint ## two minutes of tests: what needs no namespace, one life of every plugin, documentation
	$(call say,quick tests)
	@$(pytest) --quick $(ARGS)

test-load: lint bundle listed-tests ## the tests of make test RUNS=5 times beside LOAD=8 busy processes
	$(call say,tests beside a load of $(LOAD))
	@$(python) -m tests.support.load --runs "$(RUNS)" --load "$(LOAD)" -- \
		$(kernels) --listed dist/tests.jsonl both -- $(pytest) $(brief) $(ARGS)

# Lists the tests for the second kernel, and compiles them: several workers at once would each compile all.
# What cannot be collected fails the run that follows.
listed-tests: .venv/stamp
	@mkdir -p dist && rm -f dist/tests.jsonl
	@$(python) -m pytest -q --collect-only --kernel-report=dist/tests.jsonl $(brief) $(ARGS) >/dev/null || true

# What the bundle leaves out is proven unused by this.
test-bundle: .venv/stamp bundle ## the plugins' tests against the frozen suite, cold and warm
	@dist/bundle/pycni --install --prefix "$(CURDIR)/dist/installed" --bindir "$(CURDIR)/dist/installed/plugins" \
		--units no
	$(call say,tests of the bundle)
	@PYCNI_BINDIR="$(CURDIR)/dist/installed/plugins" $(pytest) \
		plugins tests/netns/test_every_plugin.py tests/netns/test_conf_files.py $(ARGS)

test-single: .venv/stamp ## the plugins' tests, each call in a warm worker of its own
	$(call say,tests with single-use workers)
	@PYCNI_MODE=single $(pytest) plugins tests/netns/test_every_plugin.py $(ARGS)

soak: .venv/stamp ## faults everywhere, churn with kills, SECONDS=300 of each kind, 10,000 calls of one server, 1,000 attachments
	$(call say,faults at every step)
	@PYCNI_FAULTS=all $(pytest) tests/netns -k "faults or floods" $(ARGS)
	$(call say,churn for $(SECONDS) s, endurance and scale)
	@PYCNI_CHURN_S=$(SECONDS) PYCNI_SOAK=10000 PYCNI_SCALE=1000 $(python) -m pytest -q tests/churn \
		tests/warm/test_warm_endurance.py tests/netns/test_scale_attachments.py $(ARGS)

fuzz: .venv/stamp ## CASES=10000 of each kind of input, tens of minutes; SEED=1 says which
	$(call say,fuzzing with $(CASES) cases of each kind and seed $(SEED))
	@PYCNI_FUZZ=$(CASES) PYCNI_FUZZ_SEED=$(SEED) $(pytest) tests/fuzz tests/property $(ARGS)

pages: .venv/stamp ## write docs/api.md and the tables of keys in plugins/*/README.md from the sources
	@PYTHONPATH=.:build $(python) build/api_page.py
	@PYTHONPATH=.:build $(python) build/key_tables.py

lint: .venv/stamp ## rules, formatting and types
	$(call say,ruff: rules and formatting)
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	$(call say,mypy: types)
	@$(python) -m mypy

bench: .venv/stamp bundle ## measure against the Go plugins, minutes; writes docs/benchmarks.md, QUICK=1 dist/bench
	@$(python) -m bench --size $(if $(QUICK),quick,full) $(BENCH_BINDIR:%=--other %) $(BENCH_OURS:%=--ours %)

packages: ## install the Debian packages that tests need, or say which are missing
	$(call say,system packages)
	@build/system-packages.sh build test

# The links of a virtual environment go to the folders of plugins that there are now.
.venv/stamp: pyproject.toml Makefile build/lock/dev.txt $(wildcard plugins/*/plugin.toml) | packages
	$(call say,virtual environment from build/lock/dev.txt)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	@[ -x $(python) ] || $(PYTHON) -m venv .venv
	@$(python) -m pip install --quiet --disable-pip-version-check --require-hashes -r build/lock/dev.txt
	@printf '%s\n' '$(CURDIR)' '$(CURDIR)/build' $(PLUGINS:%='$(CURDIR)/%') \
		> "$$($(python) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/pycni-dev.pth"
	@touch $@

bundle: dist/venv/stamp dist/launcher dist/program dist/connection.so ## freeze the suite with its interpreter into dist/bundle
	@PYTHONPATH=. $(freezer) build/make_bundle.py

# An environment of its own: whatever else were in it could slip into the bundle.
dist/venv/stamp: build/lock/bundle.txt
	$(call say,system packages for building)
	@PYTHON="$(FROZEN_PYTHON)" build/system-packages.sh build
	$(call say,virtual environment from build/lock/bundle.txt)
	@$(FROZEN_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	@$(FROZEN_PYTHON) -m venv --clear dist/venv
	@$(freezer) -m pip install --quiet --disable-pip-version-check --require-hashes -r build/lock/bundle.txt
	@touch $@

dist/launcher: $(wildcard build/launcher/*) | dist/venv/stamp
	$(call say,launcher)
	@build/launcher/compile.sh $@ build/launcher/*.c

dist/connection.so: $(wildcard build/connection/*) build/launcher/protocol.h | dist/venv/stamp
	@build/connection/compile.sh $@ build/connection/*.c

dist/program: build/bundle/program.c build/launcher/compile.sh | dist/venv/stamp
	@build/launcher/compile.sh $@ build/bundle/program.c

install: bundle ## put the plugins into BINDIR, all that they import into PREFIX
	@dist/bundle/pycni --install --bindir "$(BINDIR)" $(places) $(if $(SBINDIR),--sbindir "$(SBINDIR)") \
		$(CONF:%=--conf %) --units "$(UNITS)" $(if $(filter no,$(SELFTEST)),--no-self-test)

# The installed program does it, from whatever version it is; this one, where an installation was killed before that.
uninstall: ## remove what install has put there
	@for program in "$(DESTDIR)$(PREFIX)"/*/pycni; do case "$$program" in */bin/pycni) ;; \
		*) [ ! -x "$$program" ] || exec "$$program" --uninstall $(places) $(ATTACHED:%=--attached %) ;; esac; done; \
	for stage in "$(DESTDIR)$(PREFIX)"/.pycni-new-*; do \
		[ ! -d "$$stage" ] || [ ! -x dist/bundle/pycni ] || exec dist/bundle/pycni --uninstall $(places); done; \
	echo "nothing is installed in $(DESTDIR)$(PREFIX)"; \
	for other in /opt/pycni /opt/cni/bin/pycni /usr/lib/cni/pycni; do \
		[ ! -e "$(DESTDIR)$$other/installed.json" ] || echo "make uninstall PREFIX=$$other removes what is there"; done

dist: bundle ## pack dist/pycni-VERSION-linux-ARCH.tar.gz, which installs where there is no Python
	@build/make_tarball.sh

clean: ## remove the virtual environment, caches and what was built
	rm -rf .venv dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
