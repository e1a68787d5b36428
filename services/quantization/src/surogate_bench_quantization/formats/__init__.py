"""Number formats: rounding to their elements, scaling, and their packed forms. Pure functions of tensors."""
