"""The names of each face parser's classes, in the order of their numbers, and their grouping into regions."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.regions import REGIONS

_CELEBA = (
    "background skin l_brow r_brow l_eye r_eye eye_g l_ear r_ear ear_r nose "
    "mouth u_lip l_lip neck neck_l cloth hair hat"
)
_PARSENET = (
    "background skin nose eye_g l_eye r_eye l_brow r_brow l_ear r_ear mouth "
    "u_lip l_lip hair hat ear_r neck_l neck cloth"
)
_LAPA = "background face rb lb re le nose ulip imouth llip hair"
_CELEBM = "background neck face cloth rr lr rb lb re le nose imouth llip ulip hair eyeg hat earr neck_l"

LABELS: dict[str, tuple[str, ...]] = {
    "portrait": REGIONS,
    "farl-lapa": tuple(_LAPA.split()),
    "farl-celebm": tuple(_CELEBM.split()),
    "bisenet": tuple(_CELEBA.split()),
    "parsenet": tuple(_PARSENET.split()),
}


def grouping(labels: Sequence[str], hair: Sequence[str], face: Sequence[str]) -> NDArray[np.uint8]:
    """The region of each label, u8 [len(labels)]: labels in `hair` or `face` are that region, all others background.

    Raises: ValueError for a name that is not a label or is in both groups.
    """
    for name in (*hair, *face):
        if name not in labels:
            raise ValueError(f"{name!r} is not one of its labels: {', '.join(labels)}")
    if both := set(hair) & set(face):
        raise ValueError(f"{', '.join(sorted(both))} cannot be both hair and face")
    region_of = {name: REGIONS.index("hair") for name in hair} | {name: REGIONS.index("face") for name in face}
    return np.array([region_of.get(name, REGIONS.index("background")) for name in labels], np.uint8)
