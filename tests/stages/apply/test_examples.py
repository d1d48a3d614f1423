"""The examples run as they are, on untrained networks at 32 px."""

import dataclasses
import runpy
from pathlib import Path

import pytest

from pipeline import images, profile
from tests.stages.apply.test_studio import ready

EXAMPLES = Path(__file__).parents[3] / "examples"
pytestmark = pytest.mark.weights


def test_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = profile.load("tiny")
    train = dataclasses.replace(tiny.train, refinement_iterations=1, region_deltas=True)
    ready(dataclasses.replace(tiny, train=train), tmp_path)
    (tmp_path / "run").rename(tmp_path / "default")
    (tmp_path / "runs").mkdir()
    (tmp_path / "default").rename(tmp_path / "runs" / "default")
    Path(tmp_path, "small.toml").write_text(
        'extends = "tiny"\nname = "small"\n[train]\nrefinement_iterations = 1\nregion_deltas = true\n'
    )
    monkeypatch.chdir(tmp_path)
    main = {path.stem: runpy.run_path(str(path))["main"] for path in sorted(EXAMPLES.glob("*.py"))}
    assert sorted(main) == ["live", "one_portrait", "regions_and_mixes"]
    main["one_portrait"]("me.png", "out", "a.png", "b.png", profile="small.toml")
    main["regions_and_mixes"]("me.png", "mixed.png", "a.png", "b.png", profile="small.toml")
    main["live"]("me.png", "a.png", "steps", profile="small.toml")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
    assert images.decode(Path("mixed.png").read_bytes()).shape == (32, 64, 3)
    assert len(list((tmp_path / "steps").iterdir())) > 1
