"""The work queue and the threads that take sweeps from it."""
