"""Stages: what they are asked, where their results are, and when two are equal."""
