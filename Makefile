# make demo        Create an environment in .venv, then run the whole chain on simulated frames.
# make check       Run the linters, and the tests that start no process and open no Butler: the loop while editing.
# make test        Run the suite: the loop before a commit.
# make soak        Run the long tests, which the suite leaves out.
# make judges      Have Rubin's own tools judge the products; wants Python 3.12: make judges VENV=.venv-3.12 PYTHON=python3.12
# make pythons     Run the judges on Python 3.12, and the unit tests and the demo on 3.13, each in its own environment.
# make bench       Run the benchmarks against the peers (20 minutes); they write bench-results/*.json.
# make slurm-deps  Install Debian's Slurm packages (as root).
# make postgresql-deps  Install Debian's PostgreSQL, from which a test starts a server of its own (as root).
# make ssh-deps    Install Debian's ssh server, which systemd starts at once (as root).
# make clean       Remove what the others made in this folder.
#
# `check`, `test` and `soak` share one environment with the test tools; pyproject.toml and constraints.txt renew it.
# VENV names another one, as another PYTHON wants.
# All targets are relative, and pip gets its constraints as a relative path, because both make and pip split at blanks.

PYTHON ?= python3
VENV ?= .venv
PEER_PACKAGES = siril iraf
SLURM_PACKAGES = slurmctld slurmd slurm-client munge slurm-wlm-basic-plugins
SSH_PACKAGES = openssh-server
POSTGRESQL_PACKAGES = postgresql

# pip < 25.3 applies PIP_CONSTRAINT to the build requirements too; later ones want it said separately.
export PIP_CONSTRAINT = constraints.txt
export PIP_BUILD_CONSTRAINT = constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# -P: a folder in the working directory is never imported by accident; -m: the shebang of an installed script may not
# survive a path with a blank.
RUN = $(VENV)/bin/python -P -m
# Workers of pytest: for two cores three, because tests with a cluster or an outage wait. The tests of a file share a
# repository, and stay on one worker.
JOBS = 3
PYTEST = $(RUN) pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: demo check units test soak judges pythons bench bench-deps slurm-deps ssh-deps postgresql-deps clean
.NOTPARALLEL:

demo: $(VENV)/demo.stamp
	$(RUN) campaign doctor --warm
	$(RUN) campaign demo

check: $(VENV)/test.stamp
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	@$(MAKE) units

# Nothing waits here.
units: JOBS = 2
units: $(VENV)/test.stamp
	@$(RUN) kernels.run --warm
	$(PYTEST) -m "not soak and not processes"

test: $(VENV)/test.stamp
	@missing=""; \
	PATH="$$PATH:/usr/sbin:/sbin" command -v slurmctld >/dev/null || missing="$$missing those with a Slurm cluster (no slurmctld: make slurm-deps);"; \
	PATH="$$PATH:/usr/sbin:/sbin" command -v sshd >/dev/null || missing="$$missing those over ssh (no sshd: make ssh-deps);"; \
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$$missing the one with PostgreSQL (make postgresql-deps);"; \
	[ -d "$${CAMPAIGN_FRAMES:-../shared/frames}" ] || missing="$$missing those with real frames (set CAMPAIGN_FRAMES);"; \
	ls $(VENV)/lib/python3.*/site-packages/lsst/ctrl/bps >/dev/null 2>&1 || missing="$$missing those with Rubin's own tools (make pythons);"; \
	[ -d "$${CAMPAIGN_CURATED:-../shared/curated}" ] || missing="$$missing those with real calibrations (set CAMPAIGN_CURATED);"; \
	echo "Left out:$$missing the long ones (make soak)"
	@$(RUN) kernels.run --warm  # once, and not by several tests at the same time
	$(PYTEST)

soak: $(VENV)/soak.stamp
	$(RUN) pytest -m soak

# With the long ones.
judges: JOBS = 2
judges: $(VENV)/judge.stamp
	@$(RUN) kernels.run --warm
	$(PYTEST) -m "soak or not soak" tests/judges

# The other Pythons that pyproject.toml promises; one that is not on this machine is said, and is no failure.
pythons:
	@with() { \
	    version=$$1; shift; \
	    if python=$$(.ci/python $$version); then \
	        echo "Python $$version is $$python: $$*"; $(MAKE) VENV=.venv-$$version PYTHON="$$python" "$$@"; \
	    else echo "LEFT OUT: no Python $$version on the PATH or of pyenv, so not run: $$*"; fi; \
	}; with 3.12 judges && with 3.13 units demo

# What `BENCH` says goes to the benchmarks: make bench BENCH='kernel decoder --repeat 5'. They are no installed package.
bench: $(VENV)/bench.stamp bench-deps
	PYTHONPATH=. $(RUN) tests.benchmarks $(BENCH)

# What cannot be had is left out of the benchmarks, which say so.
bench-deps:
	@if dpkg -s $(PEER_PACKAGES) >/dev/null 2>&1; then :; \
	elif ! command -v apt-get >/dev/null; then echo "no apt-get: without $(PEER_PACKAGES)"; \
	elif [ "$$(id -u)" -ne 0 ]; then echo "not root: without $(PEER_PACKAGES)"; \
	else export DEBIAN_FRONTEND=noninteractive; \
	    { apt-get update && apt-get install -y --no-install-recommends $(PEER_PACKAGES); } </dev/null >bench-deps.log 2>&1 \
	    && rm bench-deps.log || echo "without $(PEER_PACKAGES): apt-get failed, see bench-deps.log"; \
	fi

# Libraries are compiled when they are first imported: to compile all of them would take as long as to install them.
$(VENV)/demo.stamp: EXTRAS = local
$(VENV)/test.stamp: EXTRAS = local,test
$(VENV)/judge.stamp: EXTRAS = local,test,judge
$(VENV)/soak.stamp: EXTRAS = local,test,soak
$(VENV)/bench.stamp: EXTRAS = local,bench
$(VENV)/demo.stamp $(VENV)/test.stamp $(VENV)/judge.stamp $(VENV)/soak.stamp $(VENV)/bench.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit( \
	    "Python 3.11 to 3.13 is needed, $(PYTHON) is %d.%d: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --no-compile --editable '.[$(EXTRAS)]'
	touch $@

slurm-deps: WANTED = $(SLURM_PACKAGES)
ssh-deps: WANTED = $(SSH_PACKAGES)
postgresql-deps: WANTED = $(POSTGRESQL_PACKAGES)
slurm-deps ssh-deps postgresql-deps:
	@if dpkg -s $(WANTED) >/dev/null 2>&1; then echo "installed: $(WANTED)"; \
	elif ! command -v apt-get >/dev/null; then \
	    echo "make $@ needs apt-get (Debian, Ubuntu); elsewhere install: $(WANTED)" >&2; exit 1; \
	elif [ "$$(id -u)" -ne 0 ]; then \
	    echo "make $@ must run as root: sudo make $@" >&2; exit 1; \
	else export DEBIAN_FRONTEND=noninteractive; \
	    apt-get update && apt-get install -y --no-install-recommends $(WANTED) </dev/null; \
	fi

clean:
	rm -rf .venv .venv-* campaign-demo campaign-demo-[0-9]* bench-results bench-deps.log build dist drp_campaign.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find campaign kernels slurm templates tests -name __pycache__ -type d -prune -exec rm -rf {} +
