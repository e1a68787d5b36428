"""The controller: brings the RecipeSweeps of one namespace to their ends, and tells how they stand."""
