"""The runtime of one machine: services as child processes."""
