"""Which checkpoint of a self-supervised run has the best patch features, and why."""

from densescope._version import __version__ as __version__
from densescope.errors import CheckpointError as CheckpointError
from densescope.errors import DataError as DataError
from densescope.errors import DensescopeError as DensescopeError
from densescope.errors import InputError as InputError
from densescope.errors import RecordError as RecordError
from densescope.estimate import Estimate as Estimate
from densescope.records import ScoreRecord as ScoreRecord
