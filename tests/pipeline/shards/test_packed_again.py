"""A reader that is open while the shards are packed again reads either packing, never both."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.shards import writer
from tests.pipeline.shards.test_readers import COUNT, indexed, sample

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    folder.mkdir()
    writer.write(folder, [("content", "train", map(sample, range(COUNT)))], 90_000, {})
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_packed_again_are_never_mixed_with_former_ones(copied: Path, workers: int) -> None:
    loader = indexed(copied, workers=workers)
    packing = [("content", "train", [sample(i, np.ones((4, 16), np.float32)) for i in range(COUNT)])]
    batches, found = loader.epoch(), []
    found.append(next(batches))
    writer.write(copied, packing, 90_000, {})
    with pytest.raises(UserError, match=r"^[^ ]+: its shards were packed again while.*run the same command again"):
        found += batches
    assert all((batch["latent"] != 1).any() for batch in found)
    with pytest.raises(UserError, match="cannot resume: the data was"):
        indexed(copied).restore(loader.state())
    assert all((batch["latent"] == 1).all() for batch in indexed(copied).epoch())


def test_the_same_shards_written_again_are_read_on(copied: Path) -> None:
    loader = indexed(copied)
    batches = loader.epoch()
    first = next(batches)
    writer.write(copied, [("content", "train", map(sample, range(COUNT)))], 90_000, {})
    assert sorted(key for batch in [first, *batches] for key in batch["key"]) == [f"k{i:03d}" for i in range(COUNT)]
    indexed(copied).restore(loader.state())
