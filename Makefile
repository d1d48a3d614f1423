# One target per stage, in the order data flows. `make` alone prints help with the state of each stage.
# Stages resume by themselves, so a target may always be run again; make's unit is a stage, never an image.

VENV ?= .venv
CACHE ?= cache
PYTHON ?= $(firstword $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p; done))
READY := $(VENV)/.hypernst-ready
BIN := $(VENV)/bin
# Only a few modules of the libraries are ever imported. They are compiled when that happens, and kept, whatever the
# shell says.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/python -m pip install --quiet --no-compile -c constraints.txt
option = $(if $($1),--$2 '$($1)')
COMMON := $(strip $(call option,PROFILE,profile) $(call option,CACHE,cache) $(call option,RUN,run) \
	$(call option,LIMIT,limit) $(call option,ENGINE,engine) $(call option,DEVICE,device))
SOURCES := $(strip $(call option,CONTENT,content) $(call option,STYLE,style))
NO_FACES := $(call option,NO_FACE,no-face)
CACHED := samples align latents masks aladin-codes shards
STAGES := $(CACHED) train eval
TRAININGS := fit-head finetune-generator train-inverter train-parser train-aladin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup weights $(STAGES) demo ablation quality inspect verify explain doctor test lint bench clean $(TRAININGS)

help: ## print this text
	@echo 'HyperNST: stylise portraits region by region. Targets, and what already exists:'
	@awk -F ':.*## ' -v cache='$(CACHE)' -v venv='$(VENV)' '/^[a-z][a-z-]*:.*## / { \
		text = $$2; state = ""; \
		if (match(text, / \[.*\]$$/)) { \
			files = substr(text, RSTART + 2, RLENGTH - 3); text = substr(text, 1, RSTART - 1); \
			gsub(/CACHE/, cache, files); gsub(/VENV/, venv, files); \
			n = split(files, each, " "); have = 0; \
			for (i = 1; i <= n; i++) if (system("test -e " each[i]) == 0) have++; \
			state = have == n ? "made" : have ? "partly" : "-" } \
		printf "  %-18s %-7s %s\n", $$1, state, text }' $(firstword $(MAKEFILE_LIST))
	@echo 'Settings: PROFILE= CONTENT= STYLE= CACHE= RUN= NO_FACE= LIMIT= ENGINE= DEVICE= VENV= PYTHON='

setup: $(READY) ## create the virtual environment [VENV/.hypernst-ready]

# The stamp makes an unchanged environment cost nothing. `.unfinished` lies beside the environment while it is being
# filled, so that one killed half-way is rebuilt. To an environment of your own, named by VENV, packages are only added.
$(READY): pyproject.toml constraints.txt
	@test -n '$(PYTHON)' || { echo 'make: no Python 3.11 or newer on PATH; name one with PYTHON=' >&2; exit 2; }
	@if [ -e '$(VENV).unfinished' ] || [ ! -x '$(BIN)/python' ]; then \
		touch '$(VENV).unfinished' && echo 'making $(VENV)' && $(PYTHON) -m venv --clear '$(VENV)'; fi
	@echo 'installing into $(VENV): some GB with the GPU libraries, a few minutes the first time'
	$(INSTALL) -e '.[dev]'
# facexlib requires opencv-python, which shares files with the headless build but needs desktop libraries.
	@if $(BIN)/python -m pip show --quiet opencv-python 2>/dev/null; then \
		$(BIN)/python -m pip uninstall --quiet --yes opencv-python && \
		$(INSTALL) --no-deps --force-reinstall opencv-python-headless; fi
	@$(BIN)/python -c 'import cv2, torch, torchvision, pipeline'
	@rm -f '$(VENV).unfinished' && touch '$@.tmp' && mv '$@.tmp' '$@'

weights: $(READY) ## fetch the published weights the profile needs
	$(BIN)/hypernst weights $(COMMON) fetch

# The stages that have something to do, asked once before anything runs: `make -n` and `make -q` then tell the truth, and
# nothing is started for the others. If that is not known, all stages count.
ifneq ($(filter $(STAGES),$(MAKECMDGOALS)),)
UNFINISHED := $(shell test -e $(READY) && $(BIN)/hypernst explain --names $(COMMON) $(SOURCES) $(NO_FACES) 2>/dev/null || \
	echo $(CACHED))
endif

# Sample images are made only if the run reads them.
ifeq ($(CONTENT)$(STYLE),)
align: samples
endif
latents masks: align
aladin-codes: masks
shards: latents aladin-codes
train: shards
eval: latents aladin-codes

samples: ## make sample images [CACHE/samples/content CACHE/samples/style]
align: ## find faces, cut aligned squares [CACHE/content/images.h5 CACHE/style/images.h5]
latents: ## invert them into W+ [CACHE/content/latents.h5 CACHE/style/latents.h5]
masks: ## parse faces into hair, face, background [CACHE/content/masks.h5 CACHE/style/masks.h5]
aladin-codes: ## embed each region's style [CACHE/content/aladin.h5 CACHE/style/aladin.h5]
shards: ## pack webdataset shards [CACHE/shards/index.json]
train: ## train the hypernetwork, or resume (PROCESSES=2: data-parallel)
eval: ## compare the methods

$(STAGES): $(READY)

# Training with several processes on one machine: one per GPU, or two or more on a CPU.
ifneq ($(PROCESSES),)
train: private LAUNCH = $(BIN)/torchrun --standalone --nproc-per-node=$(PROCESSES)
endif

$(filter $(UNFINISHED),$(CACHED)) train eval:
	$(strip $(LAUNCH) $(BIN)/hypernst $@ $(COMMON) $(SOURCES) $(if $(filter align,$@),$(NO_FACES)))

demo: $(READY) ## everything from nothing on the samples, with a gallery [runs/demo/index.html runs/demo/sheet.png]
	$(BIN)/hypernst demo $(COMMON) $(SOURCES)

quality: $(READY) ## measure the shipped weights on PORTRAITS=dir (SHEET= CONTROL_SHEET= STRIP= name images to draw)
	@test -n '$(PORTRAITS)' || { echo 'make quality: name a folder of portraits with PORTRAITS=dir' >&2; exit 2; }
	@$(BIN)/hypernst quality $(COMMON) $(strip $(call option,SHEET,sheet) \
		$(call option,CONTROL_SHEET,control-sheet) $(call option,STRIP,strip)) '$(PORTRAITS)'

ablation: $(READY) ## make the paper's ablation TABLE=2, 3 or 4 (STEPS= stylisation steps per row)
	@test -n '$(TABLE)' || { echo 'make ablation: name a table with TABLE=2, 3 or 4' >&2; exit 2; }
	$(BIN)/hypernst ablation $(COMMON) $(SOURCES) --table $(TABLE) $(call option,STEPS,steps)

inspect: $(READY) ## say what is in FILE=cache/.../x.h5
	@test -n '$(FILE)' || { echo 'make inspect: name a file with FILE=' >&2; exit 2; }
	@$(BIN)/hypernst inspect '$(FILE)'

verify: $(READY) ## check every cache file and shard
	@$(BIN)/hypernst verify $(COMMON) $(SOURCES)

explain: $(READY) ## say what STAGE=align (or every stage) would compute again, and why
	@$(BIN)/hypernst explain $(COMMON) $(SOURCES) $(NO_FACES) $(STAGE)

doctor: $(READY) ## report versions, weights, disk, memory, GPU
	@$(BIN)/hypernst doctor $(COMMON)

fit-head: ## fit the generator's 256 px output head (MINUTES= STEPS= limit each training)
finetune-generator: ## teach the generator the content and style portraits of DATA=dir
train-inverter: ## train the encoder into W+ on DATA=dir
train-parser: ## distil the portrait parser on DATA=dir
train-aladin: ## train the style code's projection head on DATA=dir

$(TRAININGS): $(READY)
	$(BIN)/hypernst $@ $(COMMON) $(call option,DATA,data) $(call option,MINUTES,minutes) $(call option,STEPS,steps)

test: $(READY) ## run the tests, except those marked slow
	$(BIN)/python -m pytest

lint: $(READY) ## run ruff (check and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy

bench: $(READY) ## measure speeds side by side [bench/results.md]
	@$(BIN)/python bench/run.py

clean: ## remove the caches; runs, weights and the environment stay
	test ! -d '$(CACHE)' || find '$(CACHE)' -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -r {} +
