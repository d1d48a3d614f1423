"""Every hostile input in one folder, beside a good picture: the stage goes on with little more memory."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.pipeline.sources.test_archives import PEAK, PROBLEMS, SHARED, folder  # noqa: F401
from tests.pipeline.sources.test_decode import BOMBS, flat
from tests.support.limits import limited

ALIGN = """
from stages.cli.main import cli
try:
    cli(['align', '--profile', sys.argv[1], '--device=cpu', *sys.argv[2:]], standalone_mode=False)
except SystemExit as left:
    print('exit', left.code)
"""


@pytest.mark.weights
def test_the_stage_goes_on_beside_every_hostile_input(folder: Path, tmp_path: Path) -> None:  # noqa: F811
    content = tmp_path / "content"
    content.mkdir()
    for source in [*(folder / name for name in PROBLEMS), *(SHARED.iterdir() if SHARED.is_dir() else ())]:
        (content / source.name).symlink_to(source)
    for number, (side, mode, kind, options) in enumerate(BOMBS):
        (content / f"{number}.{kind.lower()}").write_bytes(flat(side, mode, kind, **options))
    ramp = np.linspace(0, 255, 1600 * 1600 * 3).reshape(1600, 1600, 3).astype(np.uint8)
    Image.fromarray(ramp).save(content / "good.png")
    peaks = []
    for place in (content / "good.png", content):  # an ordinary picture alone, for the libraries and the detector
        said, peak = limited(
            ALIGN,
            "portable",
            f"--content={place}",
            f"--style={content / 'good.png'}",
            f"--cache={tmp_path / 'cache'}",
            "--no-face=keep",
            seconds=120,
        )
        assert "exit" not in said.replace("exit 0", "")
        peaks.append(peak)
    print(f"peaks: {peaks[0]} MB for a good picture alone, {peaks[1]} MB with everything else")
    assert peaks[1] - peaks[0] < PEAK
    rejects = [json.loads(line) for line in (tmp_path / "cache/content/rejects.jsonl").read_text().splitlines()]
    reasons = [line["reason"] for line in rejects]
    assert sum("to decode, more than" in reason for reason in reasons) >= 5
    assert sum("damaged or cut archive" in reason for reason in reasons) >= 6
    assert not any(line["key"] == "good" for line in rejects)
