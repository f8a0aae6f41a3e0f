"""Training runs whose checkpoints the rest of the package reads."""
