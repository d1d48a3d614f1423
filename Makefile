# One target per stage, in the order data flows. `make` alone prints help with the state of each stage.
# Stages resume by themselves, so a target may always be run again; make's unit is a stage, never an image.

VENV ?= .venv
CACHE ?= cache
python = $(if $(value PYTHON),$(call quoted,PYTHON),$(firstword $(shell \
	for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p; done)))
# A setting is passed on as it was written, whatever is in it: as raw text, in quotes of which only a leading ~ is left
# out. `$` is a sign like others here, so none is handed to commands as a variable, where make would expand it.
SETTINGS := PROFILE CONTENT STYLE CACHE RUN NO_FACE LIMIT ENGINE DEVICE PROCESSES PORTRAITS SHEET CONTROL_SHEET STRIP \
	TABLE STEPS FILE STAGE DATA MINUTES OUT METHOD METHODS BUDGET STRENGTH LABELLED \
	TEACHER_SHARE VENV
unexport $(SETTINGS) PYTHON
no :=
space := $(no) $(no)
define line


endef
quoted = $(subst $(line),,$(subst $(line)'~',~,$(subst $(line)'~/,~/',$(line)'$(subst ','\'',$(value $1))')))
option = $(if $(value $1), --$2 $(call quoted,$1))
BIN := $(call quoted,VENV)/bin
# Scripts go through python: pip starts them by a shell that would expand a `$` in the environment's path.
hypernst := $(BIN)/python $(BIN)/hypernst
STAMP := $(call quoted,VENV)/.hypernst-ready
UNFINISHED_VENV := $(call quoted,VENV).unfinished
# The same as a target: make would take a space for the end of the name.
READY := $(subst $(space),\ ,$(value VENV))/.hypernst-ready
# Of some GB of libraries only few modules are ever imported; those are compiled then, and kept whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/python -m pip install --quiet --no-compile -c constraints.txt
profile := $(call option,PROFILE,profile)
cache := $(call option,CACHE,cache)
run := $(call option,RUN,run)
limit := $(call option,LIMIT,limit)
device := $(call option,DEVICE,device)
sources := $(call option,CONTENT,content)$(call option,STYLE,style)
no_face := $(call option,NO_FACE,no-face)
rows := $(profile)$(cache)$(limit)$(call option,ENGINE,engine)$(device)
# What each stage's command takes: none is handed an option that it would ignore.
takes_samples := $(profile)$(cache)$(device)
takes_align := $(rows)$(run)$(sources)$(no_face)
takes_latents := $(rows)
takes_masks := $(rows)
takes_aladin-codes := $(rows)
takes_shards := $(profile)$(cache)$(limit)
limits := $(call option,MINUTES,minutes)$(call option,STEPS,steps)
takes_train := $(profile)$(cache)$(run)$(device)$(limits)
measured := $(profile)$(cache)$(run)$(limit)$(device)
strength := $(call option,STRENGTH,strength)
takes_eval := $(measured)$(call option,METHODS,methods)$(call option,BUDGET,budget)$(strength)
explained := $(profile)$(cache)$(run)$(limit)$(sources)$(no_face)
CACHED := samples align latents masks aladin-codes shards
STAGES := $(CACHED) train eval
TRAININGS := fit-head finetune-generator train-inverter train-parser train-aladin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup weights $(STAGES) demo studio stylize interpolate ablation tables quality directions edits inspect verify explain doctor test lint bench gpu-check clean train-baseline $(TRAININGS)

help: ## print this text
	@echo 'HyperNST: stylise portraits region by region. Targets, and what already exists:'
	@CACHE=$(call quoted,CACHE); VENV=$(call quoted,VENV); export CACHE VENV; \
	awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { \
		text = $$2; state = ""; \
		if (match(text, / \[.*\]$$/)) { \
			files = substr(text, RSTART + 2, RLENGTH - 3); text = substr(text, 1, RSTART - 1); \
			gsub(/CACHE|VENV/, "$$&", files); \
			n = split(files, each, " "); have = 0; \
			for (i = 1; i <= n; i++) if (system("test -e \"" each[i] "\"") == 0) have++; \
			state = have == n ? "made" : have ? "partly" : "-" } \
		printf "  %-18s %-7s %s\n", $$1, state, text }' $(firstword $(MAKEFILE_LIST))
	@echo 'Settings: PROFILE= CONTENT= STYLE= CACHE= RUN= NO_FACE= LIMIT= ENGINE= DEVICE= VENV= PYTHON='

setup: $(READY) ## create the virtual environment [VENV/.hypernst-ready]

# The stamp makes an unchanged environment cost nothing. `.unfinished` lies beside the environment while it is being
# filled, so that one killed half-way is rebuilt. To an environment of your own, named by VENV, packages are only added.
$(READY): pyproject.toml constraints.txt
	@test -n "$$(command -v $(python))" || \
		{ echo 'make: no Python 3.11 or newer on PATH; name one with PYTHON=' >&2; exit 2; }
	@if [ -e $(UNFINISHED_VENV) ] || [ ! -x $(BIN)/python ]; then \
		touch $(UNFINISHED_VENV) && echo making $(call quoted,VENV) && $(python) -m venv --clear $(call quoted,VENV); fi
	@echo installing into $(call quoted,VENV)': some GB with the GPU libraries, a few minutes the first time'
	$(INSTALL) -e '.[dev,facexlib,map,remote,studio]'
# facexlib requires opencv-python, which shares files with the headless build but needs desktop libraries.
	@if $(BIN)/python -m pip show --quiet opencv-python 2>/dev/null; then \
		$(BIN)/python -m pip uninstall --quiet --yes opencv-python && \
		$(INSTALL) --no-deps --force-reinstall opencv-python-headless; fi
	@$(BIN)/python -c 'import cv2, torch, torchvision, pipeline'
	@rm -f $(UNFINISHED_VENV) && touch $(STAMP).tmp && mv $(STAMP).tmp $(STAMP)

weights: $(READY) ## fetch the published weights the profile needs
	$(hypernst) weights$(profile) fetch

# The stages that have something to do, asked once before anything runs: `make -n` and `make -q` then tell the truth, and
# nothing is started for the others. If that is not known, all stages count.
ifneq ($(filter $(STAGES) edits,$(MAKECMDGOALS)),)
UNFINISHED := $(shell test -e $(STAMP) && $(hypernst) explain --names$(explained) 2>/dev/null || \
	echo $(CACHED))
endif

# Sample pictures are made only when they are what the run reads.
ifeq ($(sources),)
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
train: ## train the hypernetwork, or resume (PROCESSES=2: data-parallel; MINUTES= STEPS= limit it)
eval: ## compare the methods (METHODS=a,b only these; BUDGET=pairs for those that optimise each; STRENGTH=0..1)

$(STAGES): $(READY)

# Training on several processes, one a GPU or on a CPU two or more, all of one machine.
ifneq ($(value PROCESSES),)
train: private LAUNCH = $(BIN)/python -m torch.distributed.run --standalone$(call option,PROCESSES,nproc-per-node) --
endif

$(filter $(UNFINISHED),$(CACHED)) train eval:
	$(or $(LAUNCH),$(BIN)/python) $(BIN)/hypernst $@$(takes_$@)

demo: $(READY) ## everything from nothing on the samples, with a gallery [runs/demo/index.html runs/demo/sheet.png]
	$(hypernst) demo$(rows)$(run)$(sources)

studio: $(READY) ## open the studio, a page in the browser on this machine
	@$(hypernst) studio$(profile)$(cache)$(run)$(device)$(call option,STYLE,style)

stylize: $(READY) ## stylise the portrait CONTENT=file by the image STYLE=file into OUT=file, or folders (STRENGTH=0..1)
	@test -n $(call quoted,CONTENT) && test -n $(call quoted,STYLE) && test -n $(call quoted,OUT) || \
		{ echo 'make stylize: name three files with CONTENT=, STYLE= and OUT=' >&2; exit 2; }
	@$(hypernst) stylize$(profile)$(cache)$(run)$(device)$(sources)$(no_face)$(strength)$(call option,OUT,output)

interpolate: $(READY) ## walk the portrait CONTENT=file to the image STYLE=file, or through a folder, into OUT=walk.webm
	@test -n $(call quoted,CONTENT) && test -n $(call quoted,STYLE) && test -n $(call quoted,OUT) || \
		{ echo 'make interpolate: name three files with CONTENT=, STYLE= and OUT=' >&2; exit 2; }
	@$(hypernst) interpolate$(profile)$(cache)$(run)$(device)$(sources)$(call option,OUT,output)

quality: $(READY) ## measure the shipped weights on PORTRAITS=dir (SHEET= CONTROL_SHEET= STRIP= name pictures to draw)
	@test -n $(call quoted,PORTRAITS) || { echo 'make quality: name a folder of portraits with PORTRAITS=dir' >&2; exit 2; }
	@$(hypernst) quality$(profile)$(cache)$(run)$(call option,ENGINE,engine)$(device)$(call option,SHEET,sheet)$(call \
		option,CONTROL_SHEET,control-sheet)$(call option,STRIP,strip) $(call quoted,PORTRAITS)

ablation: $(READY) ## make the paper's ablation TABLE=2, 3 or 4 (STEPS= of stylisation a row)
	@test -n $(call quoted,TABLE) || { echo 'make ablation: name a table with TABLE=2, 3 or 4' >&2; exit 2; }
	$(hypernst) ablation$(measured)$(call option,TABLE,table)$(call option,STEPS,steps)

tables: $(READY) ## the paper's tables from what eval and ablation measured [runs/tables/table1.html]
	$(hypernst) tables$(measured)

inspect: $(READY) ## say what is in FILE=cache/.../x.h5
	@test -n $(call quoted,FILE) || { echo 'make inspect: name a file with FILE=' >&2; exit 2; }
	@$(hypernst) inspect $(call quoted,FILE)

verify: $(READY) ## check every cache file and shard
	@$(hypernst) verify$(rows)$(run)$(sources)$(no_face)

explain: $(READY) ## say what would make STAGE=align (or all) compute again
	@$(hypernst) explain$(explained)$(if $(value STAGE), $(call quoted,STAGE))

doctor: $(READY) ## versions, weights, disk, memory, GPU
	@$(hypernst) doctor$(profile)$(cache)$(run)

train-baseline: $(READY) ## train METHOD=sanet, pama, contraast, artflow or sae on the shards, for eval (MINUTES= STEPS=)
	@test -n $(call quoted,METHOD) || { echo 'make train-baseline: name a method with METHOD=' >&2; exit 2; }
	$(hypernst) train-baseline$(profile)$(cache)$(run)$(device)$(limits) $(call quoted,METHOD)

fit-head: ## fit the generator's 256 px output head (MINUTES= STEPS= limit each training)
finetune-generator: ## teach the generator the content and style portraits of DATA=dir
train-inverter: ## train the encoder into W+ on DATA=dir
train-parser: ## distil the portrait parser on DATA=dir (LABELLED=dir of images with maps, TEACHER_SHARE=0..1)
train-aladin: ## train the style code's projection head on DATA=dir

$(TRAININGS): $(READY)
	$(hypernst) $@$(profile)$(run)$(device)$(limits)$(call option,OUT,output)$(if $(filter \
		train-aladin,$@),$(limit))$(if $(filter-out fit-head,$@),$(call option,DATA,data))$(if $(filter \
		train-parser,$@),$(call option,LABELLED,labelled)$(call option,TEACHER_SHARE,teacher-share))

edits: $(READY) latents masks aladin-codes ## draw portraits edited along semantic directions, with and without styles
	$(hypernst) edits$(profile)$(cache)$(run)$(device)$(call option,OUT,output)

directions: $(READY) ## find semantic directions (age, smile, pose) by scored faces of the generator [CACHE/directions]
	$(hypernst) directions$(measured)$(call option,OUT,output)

# Two processes of one thread each: two with two threads each slow one another.
test: $(READY) ## run the tests, except those marked slow
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(READY) ## run ruff (check and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/python -m mypy

bench: $(READY) ## measure speeds side by side [bench/results.md]
	@$(BIN)/python bench/run.py

gpu-check: $(READY) ## tests and measurements on this machine's GPU, as one report [bench/gpu.md]
	@$(BIN)/python bench/gpu.py

clean: ## remove the cached artefacts, nothing else; runs, weights and the environment stay
	@python=$(BIN)/python; test -x "$$python" || python=$(python); "$$python" -m stages.tools.clean $(call quoted,CACHE)
