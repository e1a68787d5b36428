"""Makes the content of a report from the results of stages: what was measured, compared and tested."""
