"""The examples run as they are, on untrained networks at 32 px."""

import runpy
from pathlib import Path

import httpx2
import numpy as np
import pytest
import torch

from pipeline import images, profile
from tests.stages.apply.test_studio import picture, ready

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


def test_nodes_wired_as_comfyui_wires_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready(profile.load("tiny"), tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "run").rename(tmp_path / "runs" / "default")
    monkeypatch.chdir(tmp_path)
    module = runpy.run_path(str(EXAMPLES / "comfyui" / "hypernst_nodes.py"))
    nodes, studio = module["NODE_CLASS_MAPPINGS"], module["studio"]
    assert set(nodes) == set(module["NODE_DISPLAY_NAME_MAPPINGS"])
    tiny = studio("tiny")
    for node in nodes.values():
        monkeypatch.setitem(getattr(node, node.FUNCTION).__globals__, "studio", lambda: tiny)

    def execute(name: str, **linked: object) -> tuple[object, ...]:
        """What a graph does: defaults for what is not linked, only inputs that the node declares."""
        node, asked = nodes[name], nodes[name].INPUT_TYPES()
        given = {key: kind[1]["default"] for key, kind in asked["required"].items() if len(kind) > 1}
        assert set(linked) | set(given) >= set(asked["required"])
        assert set(linked) <= set(asked["required"]) | set(asked.get("optional", {}))
        made = getattr(node(), node.FUNCTION)(**{**given, **linked})
        assert len(made) == len(node.RETURN_TYPES)
        return made

    me, art = (torch.from_numpy(picture(i))[None].float() / 255 for i in (0, 1))
    [portrait], [style] = execute("HyperNSTLoadPortrait", image=me), execute("HyperNSTLoadStyle", image=art)
    image, look = execute("HyperNSTStyliseByRegion", portrait=portrait, hair=style, face=style, background=style)
    expected = np.asarray(tiny.stylize(Path("me.png"), Path("a.png"), refine=0))
    assert isinstance(image, torch.Tensor) and image.shape == (1, 32, 32, 3)
    assert np.array_equal((image[0] * 255).round().byte().numpy(), expected)
    [refined] = execute("HyperNSTRefine", portrait=portrait, look=look, steps=0)
    assert isinstance(refined, torch.Tensor) and torch.equal(refined, image)


def test_the_page_of_gradio_answers() -> None:
    pytest.importorskip("gradio")
    page = runpy.run_path(str(EXAMPLES / "space" / "app.py"))["page"]()
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    try:
        assert "HyperNST" in httpx2.get(address, trust_env=False).text and not page.analytics_enabled
    finally:
        page.close()
