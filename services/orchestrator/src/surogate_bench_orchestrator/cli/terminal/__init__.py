"""Output: streams, consoles, documents, and the table of a sweep's progress."""
