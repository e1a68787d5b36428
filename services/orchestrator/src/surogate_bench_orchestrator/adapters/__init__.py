"""Ways to run tasks: as processes on this machine, or in memory for tests."""
