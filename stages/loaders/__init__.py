"""The profile's networks, loaded: the only place that looks at `kind`."""
