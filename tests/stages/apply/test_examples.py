"""The examples run as they are, on untrained networks at 32 px."""

import runpy
from pathlib import Path

import pytest

from pipeline import images, profile
from tests.stages.apply.test_studio import ready

EXAMPLES = Path(__file__).parents[3] / "examples"
pytestmark = pytest.mark.weights


def test_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready(profile.load("tiny"), tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "run").rename(tmp_path / "runs" / "default")
    monkeypatch.chdir(tmp_path)
    main = {path.stem: runpy.run_path(str(path))["main"] for path in sorted(EXAMPLES.glob("*.py"))}
    assert sorted(main) == ["live", "one_portrait", "regions_and_mixes"]
    main["one_portrait"]("me.png", "out", "a.png", "b.png", profile="tiny")
    main["regions_and_mixes"]("me.png", "mixed.png", "a.png", "b.png", profile="tiny")
    main["live"]("me.png", "a.png", "steps", profile="tiny")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
    assert images.decode(Path("mixed.png").read_bytes()).shape == (32, 64, 3)
    assert [p.name for p in (tmp_path / "steps").iterdir()] == ["00.png"]  # two refinement iterations: no more steps
