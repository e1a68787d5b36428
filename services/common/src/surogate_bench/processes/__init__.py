"""What every service's process has: start and end, logs, progress, metrics."""
