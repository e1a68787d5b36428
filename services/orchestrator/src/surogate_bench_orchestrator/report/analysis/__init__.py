"""From the results of stages to the content of a report: what was measured, compared and tested."""
