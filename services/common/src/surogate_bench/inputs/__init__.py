"""Inputs of a sweep: files of data, tasks, adapters and models, and their digests."""
