"""Label-free metrics: one row per number in ``METRICS``, with all the program knows of it."""

from densescope.metrics.compute import compute_metrics as compute_metrics
from densescope.metrics.metric import Computation as Computation
from densescope.metrics.metric import Derivation as Derivation
from densescope.metrics.metric import Metric as Metric
from densescope.metrics.metric import ScoredFeatures as ScoredFeatures
from densescope.metrics.rows import METRICS as METRICS
from densescope.metrics.settings import ScoreSettings as ScoreSettings
