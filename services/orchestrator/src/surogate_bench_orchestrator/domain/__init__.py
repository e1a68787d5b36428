"""The plan of a sweep, its observed state, and the decision about the next actions: pure functions, no I/O."""
