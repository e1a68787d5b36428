"""Training one run with several processes, one for each GPU."""
