"""Which command fills which cache file: what people are told to run when one is missing."""

PRODUCERS = {"images": "align", "latents": "latents", "parses": "masks", "masks": "masks", "aladin": "aladin-codes"}
