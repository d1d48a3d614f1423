"""Profiles: what a file may hold, what it extends, and the message when it is wrong."""

import dataclasses
import os
import re
import tomllib
from pathlib import Path

import pytest

from pipeline import profile
from pipeline.errors import UserError

NAMES = sorted(p.stem for p in profile.FOLDER.glob("*.toml"))


def write(folder: Path, text: str, name: str = "mine.toml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        profile.load(path)
    message = str(caught.value)
    assert caught.value.status == 2 and "\n" not in message and str(path) in message
    return message


def test_portable_is_every_default_and_explains_every_key() -> None:
    portable = profile.load("portable")
    assert portable == profile.Profile(name="portable")
    path = profile.FOLDER / "portable.toml"
    table = tomllib.loads(path.read_text())
    assert table.keys() == {f.name for f in dataclasses.fields(profile.Profile)}
    for section, values in table.items():
        if isinstance(values, dict):
            assert values.keys() == {f.name for f in dataclasses.fields(getattr(portable, section))}
    settings = [line for line in path.read_text().splitlines() if re.match(r"\w+ *=", line)]
    assert all(re.search(r" # .{8}", line) for line in settings), "a key without a comment"


@pytest.mark.parametrize("name", [n for n in NAMES if n != "portable"])
def test_other_profiles_hold_only_what_differs(name: str) -> None:
    table = tomllib.loads((profile.FOLDER / f"{name}.toml").read_text())
    base, whole = profile.load(table["extends"]), profile.load(name)
    assert whole.name == name
    same = [
        f"{section}.{key}"
        for section, values in table.items()
        if isinstance(values, dict)
        for key in values
        if getattr(getattr(base, section), key) == getattr(getattr(whole, section), key)
    ]
    assert same == []


@pytest.mark.parametrize("name", ["paper256", "paper1024"])
def test_the_papers_profiles_train_as_the_paper_does(name: str) -> None:
    """Three iterations, layers from 13 on, both collections; HyperStyle's losses; a day's steps, not a week's."""
    p = profile.load(name)
    s = p.train
    assert (s.refinement_iterations, s.losses_at, s.start_layer, s.reconstruct_styles) == (3, "each", 13, True)
    assert (s.lambda1, s.lambda2, s.lpips, s.patches, s.patch, s.region_deltas) == (1, 2, 0.8, 3, 32, False)
    assert (s.identity, s.identity_weights) == (0.1, "arcface-irse50")
    assert s.warm_up > 0 and s.discriminators_first > 0
    assert s.project_content != s.weights.startswith("hyperstyle")  # its heads read 512 content channels
    assert s.batch * (s.reconstruction_steps + s.stylization_steps) <= 500_000 and s.micro_batch == 0
    assert (p.eval.contents, p.eval.styles) == (100, 100)


def test_a_profile_extends_another_by_name_or_by_path_beside_it(tmp_path: Path) -> None:
    write(tmp_path, 'extends = "tiny"\nname = "first"\n[train]\nbatch = 6\n', "first.toml")
    second = profile.load(write(tmp_path, 'extends = "first.toml"\nname = "second"\n[train]\nmicro_batch = 3\n'))
    assert (second.name, second.train.batch, second.train.micro_batch) == ("second", 6, 3)
    assert second.generator == profile.load("tiny").generator


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nbatches = 3", "unknown key 'train.batches'; expected one of weights, heads,"),
        (
            "[train]\ncritics_every = 3",
            "unknown key 'train.critics_every'; it is called 'train.discriminators_every' now",
        ),
        ("[train]\nbatch = 1.5", "'train.batch' is 1.5; expected int, 1 to 1024"),
        ("[train]\nbatch = 0", "'train.batch' is 0; expected int, 1 to 1024"),
        ("[train]\nbatch = true", "'train.batch' is True; expected int, 1 to 1024"),
        ("[train]\nema = 1.5", "'train.ema' is 1.5; expected float, 0 to 1"),
        ("[train]\nema = nan", "'train.ema' is nan; expected float, 0 to 1"),
        ("[train]\nlearning_rate = inf", "'train.learning_rate' is inf; expected float, 0 to 1e+09"),
        ("seed = 99999999999999999999", "'seed' is 99999999999999999999; expected int, 0 to 1e+15"),
        ("[train]\nheads = 'big'", "'train.heads' is 'big'; expected 'channel' or 'separable' or 'hyperstyle'"),
        ("[train]\nstart_layer = 1.5", "'train.start_layer' is 1.5; expected int or str"),
        ("[parser]\nhair = 'hair'", "'parser.hair' is 'hair'; expected a list of names"),
        ("[align]\njpeg_quality = 101", "'align.jpeg_quality' is 101; expected int, 1 to 100"),
        ("[generator]\nsize = 100", "'generator.size' is 100; expected 32 or 64 or 128 or 256 or 512 or 1024"),
        ("[generator]\nsize = 256.0", "'generator.size' is 256.0; expected 32 or 64"),
        ("[align]\nsource_size = 100000", "'align.source_size' is 100000; expected int, 1 to 8192"),
        ("[aladin]\nwhole_size = 7", "'aladin.whole_size' is 7; expected int, 32 to 1024"),
        ("train = 3", "'train' is 3; expected a [train] section"),
        ("extends = 3", "'extends' is 3; expected a profile's name or a .toml file"),
        ("extends = 'nothing'", "extends no profile 'nothing': expected a .toml file or one of paper1024,"),
        ("extends = 'mine.toml'", "extends more than 8 profiles, or itself; end the chain"),
        ("[train", "not a TOML file"),
        pytest.param("a = " + "[" * 10_000, "not a TOML file", id="deep"),
        ("\x00", "not a TOML file"),
    ],
)
def test_what_is_wrong_is_reported_with_what_is_allowed(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(write(tmp_path, f"name = 'mine'\n{text}" if text.isprintable() or "\n" in text else text))


ABSURD = ("-1", "1e308", "-1e308", "nan", "inf", "9" * 40, "'x'", "[1]", "{a = 1}", "1979-05-27")


def test_absurd_values_of_every_number_are_refused(tmp_path: Path) -> None:
    """Bounds stand beside each key, so that no library sees a value that it has no words for, or no memory."""
    portable, tried = dataclasses.asdict(profile.load("portable")), 0
    for section, values in portable.items():
        for key, value in values.items() if isinstance(values, dict) else ():
            if type(value) not in (int, float) or key == "start_layer":  # which is checked against the generator
                continue
            for text in ABSURD:
                said = refused(write(tmp_path, f"name = 'mine'\n[{section}]\n{key} = {text}\n"))
                assert f"'{section}.{key}' is " in said and "; expected " in said
            tried += 1
    assert tried > 40


def test_a_profile_is_read_as_editors_write_it_and_only_from_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    path.write_bytes(b"\xef\xbb\xbf" + "name = 'Zoë'\r\nextends = 'tiny'\r\n".encode())
    assert profile.load(path).name == "Zoë"
    path.unlink()
    os.mkfifo(path)
    assert "is not a plain file" in refused(path)


def test_a_profile_needs_a_name_of_its_own(tmp_path: Path) -> None:
    assert "missing key 'name'" in refused(write(tmp_path, 'extends = "portable"\n'))


def test_a_missing_profile_is_reported_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"no profile 'nothing': expected a \.toml file or one of paper1024, paper256"):
        profile.load("nothing")
