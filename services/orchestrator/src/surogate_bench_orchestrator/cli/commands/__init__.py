"""The commands that are not methods of a target: about this machine, about several sweeps, or outside of any."""
