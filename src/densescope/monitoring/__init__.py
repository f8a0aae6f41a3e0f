"""Dense structure while a run is going: the metric object, the monitor, and what it tells whom."""

from densescope.monitoring.keeping import DenseCheckpoint as DenseCheckpoint
from densescope.monitoring.loggers import JsonLines as JsonLines
from densescope.monitoring.loggers import Logger as Logger
from densescope.monitoring.loggers import MLflow as MLflow
from densescope.monitoring.loggers import TensorBoard as TensorBoard
from densescope.monitoring.loggers import WeightsAndBiases as WeightsAndBiases
from densescope.monitoring.metric import DenseMetric as DenseMetric
from densescope.monitoring.monitor import DenseMonitor as DenseMonitor
from densescope.monitoring.observation import MetricValues as MetricValues
from densescope.monitoring.observation import Observation as Observation
from densescope.monitoring.observation import TrainingStopped as TrainingStopped
