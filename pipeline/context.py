"""Where a run reads and writes, and its limits; the command line builds it once and passes it to every stage."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.profile import Profile

COLLECTIONS = ("content", "style")


@dataclass(frozen=True)
class Context:
    """The settings of one run: the profile says what is computed, the rest says where and how much.

    `limit` keeps the first N keys of each collection. `max_rejects` is the limit per stage and collection; None means
    no limit. `retry_rejected` recomputes the rejects of earlier runs. `shards_at` names the folder or the URL of shards
    to train on that lie elsewhere.
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
    shards_at: str = ""

    def source(self, collection: str) -> Path:
        """Where the user's images for `collection` lie."""
        return {"content": self.content, "style": self.style}[collection]

    def file(self, collection: str, name: str) -> Path:
        """The cache file `name` (without .h5) of `collection`."""
        return self.cache / collection / f"{name}.h5"

    @property
    def shards(self) -> Path:
        """The folder of the shards and their index.json."""
        return self.cache / "shards"

    @property
    def training_shards(self) -> Path | str:
        """The folder or the URL of the shards that a training reads."""
        return self.shards_at or self.shards
