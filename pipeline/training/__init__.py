"""What every training shares: the loop, its state and checkpoints, processes, prefetching, memory."""
