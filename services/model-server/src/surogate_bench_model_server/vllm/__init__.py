"""vLLM as a child process: its command line, its start and end, and the client of its API."""
