"""Plans, sequences and reports a recipe sweep."""
