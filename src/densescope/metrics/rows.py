"""The table of all label-free metrics; a new metric is a new row here, and nothing else."""

from __future__ import annotations

from densescope.metrics.compared import COMPARED_METRICS
from densescope.metrics.metric import Metric
from densescope.metrics.rivals import RIVAL_METRICS
from densescope.metrics.structure import STRUCTURE_METRICS

METRICS: dict[str, Metric] = {
    row.name: row for row in (*STRUCTURE_METRICS, *COMPARED_METRICS, *RIVAL_METRICS)
}
