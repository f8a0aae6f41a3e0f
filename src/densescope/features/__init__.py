"""A checkpoint file on disk becomes a backbone, and images become grids of patch features."""
