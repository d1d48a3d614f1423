"""The user's images: found in folders and archives, given keys, decoded with care."""
