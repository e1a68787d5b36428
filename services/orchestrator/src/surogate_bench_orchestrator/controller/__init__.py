"""The controller: reconciles the RecipeSweeps of one namespace, and writes their statuses."""
