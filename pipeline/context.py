"""Where a run reads and writes, and how far it may go; built once by the command line, passed to every stage."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.profile import Profile

COLLECTIONS = ("content", "style")


@dataclass(frozen=True)
class Context:
    """One run's settings: the profile says what is computed, the rest says where and how much.

    `limit` keeps the first so many keys of each collection; `max_rejects` is per stage and collection
    (None: any number); `retry_rejected` computes remembered rejects again.
    """

    profile: Profile
    cache: Path = Path("cache")
    content: Path = Path("cache/samples/content")
    style: Path = Path("cache/samples/style")
    run: Path = Path("runs/default")
    device: str = "cpu"
    limit: int | None = None
    max_rejects: int | None = None
    retry_rejected: bool = False
    engine: str = "local"

    def source(self, collection: str) -> Path:
        """The user's own pictures for `collection`."""
        return {"content": self.content, "style": self.style}[collection]

    def file(self, collection: str, name: str) -> Path:
        """The cache file `name` (without .h5) of `collection`."""
        return self.cache / collection / f"{name}.h5"

    @property
    def shards(self) -> Path:
        """The folder of tars and index.json."""
        return self.cache / "shards"
