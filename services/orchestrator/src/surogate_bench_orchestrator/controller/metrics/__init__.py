"""What the controller exports to Prometheus."""
