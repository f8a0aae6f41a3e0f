"""Tensors in, tensors out: no files, no models, no global random state."""
