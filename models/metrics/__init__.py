"""How far two images are apart."""
