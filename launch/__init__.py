"""Command line, configs, the training loop, checkpoints and tracking."""
