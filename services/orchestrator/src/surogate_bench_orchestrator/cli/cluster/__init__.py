"""The command line on a cluster: submit a RecipeSweep, follow it, fetch its report and its logs."""
