"""Command line, configs, the one training loop, checkpoints and tracking."""
