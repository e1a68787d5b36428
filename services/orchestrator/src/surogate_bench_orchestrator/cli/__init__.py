"""The command line: commands, the two targets that they act on, and the table of a sweep's progress."""
