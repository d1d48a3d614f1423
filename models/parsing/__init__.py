"""Face parsing: an image to a region map."""
