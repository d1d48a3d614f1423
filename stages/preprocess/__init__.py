"""The stages before training, one file per make target, and their order."""
