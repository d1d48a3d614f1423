"""Which command fills which cache file: the way out that errors name when a cache is missing."""

PRODUCERS = {"images": "align", "latents": "latents", "parses": "masks", "masks": "masks", "aladin": "aladin-codes"}
