"""The work queue and its workers."""
