# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# `make help` lists what there is.  Everything but `help` keeps its caches in ${XDG_CACHE_HOME:-~/.cache}/incus-fleet-backup.

PYTHON ?= python3.11
GATES := $(PYTHON) -B -m tests.gates
export K

.DEFAULT_GOAL := help
.PHONY: help test packages lint unit units sanity package lab-test integration bench demo

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

test: packages ## everything; ends with a table and "N passed, N failed" (needs root for the lab)
	@$(GATES)

packages: # the Debian packages that the tests need
	@tests/gates/debian-packages

lint: ## ruff, mypy, yamllint, shellcheck, ansible-lint, antsibull, licences, suppressions
	@$(GATES) lint

unit: ## the unit tests, quickly (K=word: only those that match)
	@$(GATES) unit

units: ## the unit tests under ansible-test, on every supported ansible-core
	@$(GATES) units

sanity: ## ansible-test sanity on every supported ansible-core
	@$(GATES) sanity

package: ## build, inspect and try the package; galaxy-importer
	@$(GATES) package

lab-test: ## the tests on the lab's real servers (K=export: only those that match)
	@$(GATES) lab

integration: ## ansible-test's integration targets, each on every host of the lab
	@$(GATES) integration

bench: ## ratios to plain tools, side by side (half an hour; needs root)
	@$(PYTHON) -B -m benchmarks

demo: ## two real servers are backed up, lose an instance each, and get it back
	@tests/lab/demo
