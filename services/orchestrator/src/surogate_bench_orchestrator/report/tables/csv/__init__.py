"""CSV files, with unrounded numbers."""
