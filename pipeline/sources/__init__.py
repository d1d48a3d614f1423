"""The user's images: found in folders and archives, given keys, and decoded safely."""
