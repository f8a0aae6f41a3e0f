"""Dense structure while a run is going: the metric object, adapters and loggers."""
