"""Training: typed configs, state, sharded steps, checkpoints, metrics and the one loop."""
