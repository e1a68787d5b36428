"""Sweeps that run on this machine."""
