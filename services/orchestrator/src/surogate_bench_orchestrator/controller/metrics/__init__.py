"""Metrics that the controller exports to Prometheus."""
