"""Reports, made in a child process."""
