"""Number formats, weight storage and engines: what a recipe's matrix products are."""
