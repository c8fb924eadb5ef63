"""Metrics, logs and the monitoring port."""
