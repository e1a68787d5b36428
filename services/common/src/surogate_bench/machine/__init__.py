"""The machine and its software, as recorded with results and as checked."""
