"""The sentences of a report, and how its figures are formatted."""
