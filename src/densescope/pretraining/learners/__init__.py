"""The learner of each method, with its recipe and its row of ``METHODS``."""
