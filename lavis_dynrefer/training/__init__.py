"""Training and evaluation runs: task, runner, loaders, checkpoints, configuration."""
