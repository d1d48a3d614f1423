"""The colours of regions stay apart for everyone, also laid over an image."""

import itertools

import numpy as np
import pytest

from models.regions import REGIONS
from pipeline.reports import colours, sheets

# How people see linear RGB who lack a kind of cone: Machado, Oliveira and Fernandes 2009, severity 1.
SIGHT = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(colour: np.ndarray, sight: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of an sRGB colour as it is seen; a distance of 2.3 is just noticeable."""
    values = colour / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(np.asarray(sight) @ linear, 0, 1) / to_xyz.sum(1)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHT)
def test_regions_are_told_apart(sight: str) -> None:
    assert tuple(colours.REGIONS) == REGIONS
    region = np.arange(len(REGIONS), dtype=np.uint8)[None]
    for grey in (60, 128, 200):
        tinted = sheets.overlay(np.full((1, len(REGIONS), 3), grey, np.uint8), region)[0].astype(float)
        for seen in (np.array(list(colours.REGIONS.values()), float), tinted):
            spots = [lab(colour, np.asarray(SIGHT[sight])) for colour in seen]
            assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(spots, 2)) > 15
