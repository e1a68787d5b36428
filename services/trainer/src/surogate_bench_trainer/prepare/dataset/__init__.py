"""The records: where they come from, their splits, and checks of them."""
