"""What a sweep consists of and what to do next: pure functions, no I/O."""
