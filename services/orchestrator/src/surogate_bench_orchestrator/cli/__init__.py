"""The command line: commands, live view, and the client of a cluster."""
