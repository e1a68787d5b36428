"""Object store: client, location, credentials from the environment, errors, waits."""
