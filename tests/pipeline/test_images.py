"""Images as files, arrays and tensors."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline import images
from pipeline.errors import UserError
from tests.support.limits import limited


def noise(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@given(st.integers(0, 99), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_png_and_tensors_lose_nothing(seed: int, height: int, width: int) -> None:
    rgb = noise(seed, height, width)
    assert np.array_equal(images.decode(images.encode(rgb)), rgb)
    x = images.to_tensor(rgb)
    assert x.shape == (1, 3, height, width) and x.dtype == torch.float32 and float(x.abs().max()) <= 1
    assert np.array_equal(images.to_arrays(x)[0], rgb)


def test_every_level_maps_to_itself_and_the_ends_to_one() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    x = images.to_tensor(levels)
    assert (x.min(), x.max()) == (-1, 1) and np.array_equal(images.to_arrays(x), levels)
    assert images.to_arrays(torch.tensor([-9.0, 9.0, 0.0]).reshape(1, 3, 1, 1)).tolist() == [[[[0, 255, 128]]]]


def test_the_colours_are_in_order() -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    for suffix in (".png", ".jpg"):
        assert images.decode(images.encode(red, suffix)).mean((0, 1)).round() @ [1, -1, -1] > 250


def test_resizing_averages_and_leaves_the_right_size_alone() -> None:
    rgb = noise(1, 64, 64)
    data = images.encode(rgb)
    assert np.array_equal(images.decode(data, 64), rgb)
    expected = rgb.reshape(16, 4, 16, 4, 3).astype(float).mean((1, 3))
    assert np.abs(images.decode(data, 16) - expected).max() <= 1
    assert images.decode(data, 100).shape == (100, 100, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_halving_keeps_the_image_and_is_left_out_below_twice_the_size(suffix: str) -> None:
    smooth = cv2.resize(noise(1, 8, 8), (128, 128), interpolation=cv2.INTER_CUBIC)
    data = images.encode(smooth, suffix)
    for size in (64, 40):
        plain, halved = (images.decode(data, size, halve=halve).astype(float) for halve in (False, True))
        assert np.abs(halved - plain).mean() < 2
    assert not np.array_equal(images.decode(data, 40), images.decode(data, 40, halve=True))
    assert np.array_equal(images.decode(data, 65), images.decode(data, 65, halve=True))


@pytest.mark.parametrize("data", [b"", b"no image", images.encode(noise(0))[:20]], ids=["empty", "text", "cut"])
def test_bytes_that_are_no_image_are_refused(data: bytes) -> None:
    with pytest.raises(UserError, match=f"{len(data)} bytes are not an image"):
        images.decode(data)


def test_a_folder_is_read_in_order_and_its_bad_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    shades = {"b.png": 1, "a.jpg": 0, "sub/c.PNG": 2}
    for name, seed in shades.items():
        (tmp_path / name).write_bytes(images.encode(np.full((16, 16, 3), 100 * seed, np.uint8)))
    (tmp_path / "notes.txt").write_text("no image")
    folder = images.Folder(tmp_path, 8)
    assert folder[2].shape == (8, 8, 3) and [folder[i][0, 0, 0] for i in range(len(folder))] == [0, 100, 200]
    (tmp_path / "d.jpg").write_text("text")
    with pytest.raises(UserError, match=r"d\.jpg: 4 bytes are not an image"):
        images.Folder(tmp_path, 8)[2]


def test_a_folder_without_images_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no images") as fault:
        images.Folder(tmp_path, 8)
    assert fault.value.status == 2


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.new("L", (10_900, 10_900)).save(data, "PNG")
    (tmp_path / "bomb.png").write_bytes(data.getvalue())
    said, peak = limited(
        "from pipeline import images\nfrom pipeline.errors import UserError\n"
        "try:\n    images.decode(open(sys.argv[1], 'rb').read())\n"
        "except UserError as fault:\n    print(fault)",
        tmp_path / "bomb.png",
    )
    assert "or one of more than 40 million pixels; save it again, or smaller" in said and peak < 300


def test_a_folder_is_known_by_what_its_images_hold(tmp_path: Path) -> None:
    for name, seed in (("a.png", 0), ("b.png", 1)):
        (tmp_path / name).write_bytes(images.encode(noise(seed, 200, 200)))
    known = images.Folder(tmp_path, 8).identity()
    assert known.startswith("2 images ")
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    (moved / "b.png").rename(moved / "c.png")
    assert images.Folder(moved, 8).identity() == known
    data = bytearray((moved / "a.png").read_bytes())
    assert len(data) > 2 * images.END
    for at in (0, len(data) - 1):
        (moved / "a.png").write_bytes(data[:at] + b"!" + data[at + 1 :])
        assert images.Folder(moved, 8).identity() != known
