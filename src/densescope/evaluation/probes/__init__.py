"""Probes: what a reader with labels can make of frozen features, by named protocols."""

from densescope.evaluation.probes.convex import LinearResult as LinearResult
from densescope.evaluation.probes.convex import linear_probe as linear_probe
from densescope.evaluation.probes.data import ProbeData as ProbeData
from densescope.evaluation.probes.data import probe_data as probe_data
from densescope.evaluation.probes.linear_sgd import ProbeResult as ProbeResult
from densescope.evaluation.probes.linear_sgd import ProbeSettings as ProbeSettings
from densescope.evaluation.probes.linear_sgd import linear_sgd_probe as linear_sgd_probe
from densescope.evaluation.probes.patch_head import patch_targets as patch_targets
from densescope.evaluation.probes.predict import predict_masks as predict_masks
from densescope.evaluation.probes.row import ProbeProtocol as ProbeProtocol
from densescope.evaluation.probes.run import ProbeOutcome as ProbeOutcome
from densescope.evaluation.probes.run import probe_checkpoint as probe_checkpoint
from densescope.evaluation.probes.run import protocol_settings as protocol_settings
from densescope.evaluation.probes.run import run_protocol as run_protocol
from densescope.evaluation.probes.table import PROTOCOLS as PROTOCOLS
from densescope.evaluation.probes.table import find_protocol as find_protocol
