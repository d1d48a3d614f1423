"""A portrait stylised."""
