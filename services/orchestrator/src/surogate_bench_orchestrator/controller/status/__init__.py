"""The status of a RecipeSweep, its conditions and events."""
