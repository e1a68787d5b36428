"""Trainers of other software: what they are given, how they are run, and what they leave."""
