"""What all trainings share: loop, state, checkpoints, distributed processes, prefetching, memory counting."""
