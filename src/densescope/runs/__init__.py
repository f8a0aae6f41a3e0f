"""Many checkpoints: sweep, resume, store."""
