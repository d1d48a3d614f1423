"""The paper's Tables 1 to 4, to stand beside this project's; why they cannot be compared, NOT_COMPARABLE says."""

from collections.abc import Mapping

COLUMNS = ("LPIPS (Alexnet)", "LPIPS (VGG)", "SIFID")
NOT_COMPARABLE = (
    "The columns of the paper are not comparable with ours: it had other weights and other images, and names neither "
    "network nor layer of its SIFID. Nor can its LPIPS of 0.00004 be on the scale of the published metric, on which "
    "its own entry for the Swapping Autoencoder, 0.33, lies, as do ours."
)

Numbers = tuple[float, ...]

TABLE_1: Mapping[str, Numbers] = {  # by the name of `eval --methods`; the last number is seconds per image
    "sae": (0.334500, 0.4857, 1.948, 0.10),
    "hypernst": (0.000042, 0.0017, 2.279, 0.35),
    "gatys": (0.000164, 0.0030, 1.369, 14.43),
    "artflow": (0.000080, 0.0022, 1.347, 0.32),
    "pama": (0.000109, 0.0029, 0.522, 0.14),
    "sanet": (0.000180, 0.0068, 0.486, 0.11),
    "nnst": (0.000149, 0.0030, 0.871, 55.40),
    "contraast": (0.000133, 0.0035, 0.666, 0.10),
}
ABLATIONS: Mapping[int, Mapping[str, Numbers]] = {  # by the first column of the paper's table
    2: {
        "0.5": (0.001480, 0.002657, 3.312),
        "1.0": (0.001310, 0.002626, 2.590),
        "2.0": (0.000042, 0.001688, 2.279),
        "5.0": (0.000097, 0.000191, 2.463),
        "10.0": (0.000091, 0.000222, 2.571),
    },
    3: {
        "3": (0.000140, 0.00399, 3.123),
        "7": (0.000190, 0.00302, 2.792),
        "13": (0.000042, 0.00169, 2.279),
        "17": (0.000153, 0.00268, 3.337),
        "22": (0.000042, 0.00104, 3.506),
    },
    4: {
        "Baseline (with both cond and loss)": (0.00004, 0.0017, 2.279),
        "No mask cond and no mask loss": (0.00017, 0.0024, 2.892),
        "No mask cond": (0.00012, 0.0025, 2.848),
        "No mask loss": (0.00016, 0.0026, 3.438),
    },
}


def heading(*more: str) -> str:
    """The title of the column that holds the paper's numbers."""
    return f"Paper, not comparable: {', '.join((*COLUMNS, *more))}"


def cell(numbers: Numbers | None) -> str:
    """The paper's numbers of a row as they are printed, or a dash where it has none."""
    return " / ".join(f"{number:.6f}".rstrip("0") for number in numbers) if numbers else "–"
