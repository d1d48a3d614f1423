"""Results measured and shown."""
