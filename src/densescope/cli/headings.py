"""The headings under which the help of a verb lists its options, in this order."""

from __future__ import annotations

from cyclopts import Group

MAIN = Group.create_ordered("Main")
BACKBONE = Group.create_ordered("Backbone", "How a checkpoint file becomes a network.")
CHECKPOINTS = Group.create_ordered("Checkpoints", "Which files belong to the run.")
LABELS = Group.create_ordered("Labels")
PROBE = Group.create_ordered("Probe")
ONE_FILE = Group.create_ordered(
    "Backbone", "For one checkpoint; a scored run has these settings in its records."
)
NETWORK = Group.create_ordered("Network")
RECIPE = Group.create_ordered("Recipe")
METRICS = Group.create_ordered("Metrics")
RACE = Group.create_ordered("Race", "With --images-count auto: images are scored in rounds.")
CHOICE = Group.create_ordered("Choice")
WATCH = Group.create_ordered("Watching")
ALARM = Group.create_ordered("Alarm")
MONITOR = Group.create_ordered("Monitor", "With --monitor: metrics while the network is trained.")
COMPUTE = Group.create_ordered("Compute")
EXECUTOR = Group.create_ordered("Executor", "Where checkpoints are scored at the same time.")
