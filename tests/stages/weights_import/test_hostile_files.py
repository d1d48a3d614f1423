"""Hostile weights files: each is told in one line, nothing of it runs, nothing is written."""

import copyreg
import os
import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support import published_files
from tests.support.weights_import import own_cache, refused, take


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_cache(tmp_path / "cache", monkeypatch)


class Evil:
    """Asks, as every hostile pickle does, for a function to be called."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trap),)


def test_hostile_files_are_told_in_one_line_and_nothing_runs(tmp_path: Path) -> None:
    state, trap = published_files.generator(), tmp_path / "ran"
    good = published_files.converted(tmp_path / "good.pt", state)
    file, kept = tmp_path / "bad.pt", tmp_path / "kept.safetensors"

    torch.save({"g_ema": state, "args": Evil(trap)}, file)
    assert "asks for posix.mkdir" in refused(file, kept)
    torch.save({"g_ema": state, "args": Evil(trap)}, file, _use_new_zipfile_serialization=False)
    assert "asks for posix.mkdir" in refused(file, kept)
    file.write_bytes(pickle.dumps({"G_ema": Evil(trap)}, 4))
    assert "asks for posix.mkdir" in refused(file, kept) and "nothing in it was run" in refused(file, kept)
    file.write_bytes(b"\x80\x04c__builtin__\neval\n(V1\ntR.")
    assert "asks for __builtin__.eval" in refused(file, kept)
    assert not trap.exists()

    for cut in (0, 3, 1000, len(good.read_bytes()) // 2, len(good.read_bytes()) - 10):
        file.write_bytes(good.read_bytes()[:cut])
        told = refused(file, kept)
        assert "empty" in told or "truncated" in told or "no weights file" in told, told
    old, pickled = tmp_path / "old.pt", tmp_path / "n.pkl"
    for whole in (published_files.trained(old, state, True), published_files.nvidia(pickled, state)):
        file.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        assert "truncated or damaged" in refused(file, kept)
    data = bytearray(good.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert "damaged" in refused(file, kept) and "another checksum" in refused(file, kept)

    file.write_text("<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head></html>")
    assert "a web page saying that the download quota is exceeded, not weights" in refused(file, kept)
    file.write_text("<html><title>Sign in</title></html>")
    assert "a web page (Sign in), not weights" in refused(file, kept)
    file.write_bytes(b"\xff\xd8\xff\xe0 a picture")
    assert "no weights file that is known here" in refused(file, kept)
    torch.save([1, 2], file)
    assert "a PyTorch file of a list" in refused(file, kept)
    torch.save({"epoch": 3, "model": {"x": torch.zeros(1)}}, file)
    assert "none of the known layouts" in refused(file, kept)
    torch.save({"layer.weight": torch.zeros(1)}, file)
    assert "none of the known networks: StyleGAN2 generator" in refused(file, kept)


@pytest.mark.parametrize(
    ("size", "change", "told"),
    [
        (
            8,
            {"conv1.conv.weight": torch.zeros(512, 512, 3)},
            "conv1.conv.weight is [512, 512, 3] instead of [1, 512, 512",
        ),
        (64, {"convs.7.conv.weight": torch.zeros(1, 9, 9, 3, 3)}, "convs.7.conv.weight is [1, 9, 9, 3, 3] instead of"),
        (
            64,
            {"to_rgbs.3.conv.weight": torch.zeros(1, 3, 256, 1, 1)},
            "not a 64 px StyleGAN2 generator of channel multi",
        ),
        (64, {"to_rgbs.3.conv.weight": torch.zeros(1, 3, 300, 1, 1)}, "300 channels at 64 px; expected 256 times"),
        (8, {"style.1.bias": torch.full((512,), torch.nan)}, "512 of 512 values of style.1.bias are NaN or infinite"),
        (8, {"extra.weight": torch.zeros(1)}, "1 tensors are unexpected (extra.weight)"),
        (8, {"latent_avg": torch.zeros(3)}, "latent_avg is [3]"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, size: int, change: dict[str, Tensor], told: str) -> None:
    file = tmp_path / "g.pt"
    torch.save({"g_ema": published_files.generator(size) | change}, file)
    assert told in refused(file, tmp_path / "kept.safetensors")


def test_a_state_dict_with_other_things_in_it(tmp_path: Path) -> None:
    torch.save({"g_ema": published_files.generator() | {"step": 3}}, tmp_path / "g.pt")
    assert "whose step is no tensor" in refused(tmp_path / "g.pt", tmp_path / "kept.safetensors")
    partial = {name: t for name, t in published_files.generator().items() if name != "noises.noise_2"}
    torch.save({"g_ema": partial}, tmp_path / "g.pt")
    assert "tensors are missing (noises.noise_2)" in refused(tmp_path / "g.pt", tmp_path / "kept.safetensors")


def text(word: str) -> bytes:
    """The instruction that puts a word on a pickle's stack."""
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def calls(trap: Path) -> dict[str, bytes]:
    """Every instruction by which a pickle reaches for a function or a class, set to make the folder `trap`."""
    folder = text(str(trap))
    mkdir = text("posix") + text("mkdir") + b"\x93"
    return {
        "GLOBAL": b"cposix\nmkdir\n" + folder + b"\x85R.",
        "STACK_GLOBAL": mkdir + folder + b"\x85R.",
        "INST": b"(" + folder + b"iposix\nmkdir\n.",
        "OBJ": b"(cposix\nmkdir\n" + folder + b"o.",
        "NEWOBJ": b"cposix\nDirEntry\n" + folder + b"\x85\x81.",
        "NEWOBJ_EX": b"cposix\nDirEntry\n)}\x92.",
        "BUILD": b"cargparse\nArgumentParser\n)R}" + text("prog") + folder + b"sb.",
        "BUILD of an allowed class": b"cargparse\nNamespace\n)R}" + text("f") + mkdir + b"sb.",
        "a builtin": b"c__builtin__\ngetattr\n" + folder + folder + b"\x86R.",
        "an attribute's attribute": text("torch") + text("os.mkdir") + b"\x93" + folder + b"\x85R.",
        "a storage's pickle": b"ctorch.storage\n_load_from_bytes\n"
        + _bytes(b"\x80\x02cposix\nmkdir\n" + folder + b"\x85R.")
        + b"\x85R.",
        "an allowed name's method": b"ccollections\nOrderedDict.fromkeys\n" + folder + b"\x85R.",
    }


def _bytes(data: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(data)) + data


def in_zip(path: Path, data: bytes) -> Path:
    """A PyTorch file with that pickle in it."""
    with zipfile.ZipFile(path, "w") as box:
        box.writestr("archive/data.pkl", data)
        box.writestr("archive/version", "3\n")
        box.writestr("archive/byteorder", "little")
    return path


def test_no_instruction_of_a_pickle_gets_to_run(tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    for name, body in calls(trap).items():
        plain = tmp_path / "net.pkl"
        plain.write_bytes(b"\x80\x04" + body)
        for path in (plain, in_zip(tmp_path / "net.pt", b"\x80\x02" + body)):
            told = refused(path, tmp_path / "kept.safetensors")
            assert re.search(r"a pickle (that asks for|with the instruction) \S+, which weights never need", told), name
            assert not trap.exists(), name


def test_an_extensions_number_leads_to_nothing(tmp_path: Path) -> None:
    path, trap = tmp_path / "net.pkl", tmp_path / "ran"
    path.write_bytes(b"\x80\x04\x82\x99" + text(str(trap)) + b"\x85R.")
    assert "damaged" in refused(path)
    copyreg.add_extension("posix", "mkdir", 0x99)
    try:
        assert "asks for posix.mkdir" in refused(path) and not trap.exists()
    finally:
        copyreg.remove_extension("posix", "mkdir", 0x99)


def test_networks_of_the_tensorflow_years_are_called_that(tmp_path: Path) -> None:
    path = tmp_path / "stylegan2-ffhq-config-f.pkl"
    for module in ("dnnlib.tflib.network", "network", "tfutil"):
        path.write_bytes(b"\x80\x03c" + module.encode() + b"\nNetwork\n)\x81.")
        told = refused(path)
        assert "a pickle of StyleGAN's TensorFlow code" in told and "legacy.py of stylegan2-ada-pytorch" in told


def test_bombs_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as box:
        box.writestr("archive/data.pkl", bytes(50_000_000))
    assert "would unpack to 50 MB from 0.05 MB" in refused(path)
    torch.save({"g_ema": published_files.generator() | {"big": torch.zeros(1).expand(10**7, 10**7)}}, path)
    assert "whose big claims 1.0e+14 values" in refused(path)
    wide = torch.zeros(1).expand(2**29)  # 2 GB if it were laid out
    widened = published_files.generator() | {"conv1.noise.weight": wide}
    torch.save({"g_ema": widened}, path)
    assert "conv1.noise.weight is [536870912] instead of [1]" in refused(path, tmp_path / "kept.safetensors")
    plain = tmp_path / "net.pkl"
    plain.write_bytes(b"\x80\x04Nr\xff\xff\xff\x7f.")  # would make room for two thousand million objects
    assert "remembers 2147483647 objects" in refused(plain)
    wide = {"synthesis.b4.const": torch.zeros(1).expand(10**9)}
    told = refused(published_files.nvidia(plain, published_files.generator(), **wide))
    assert "synthesis.b4.const is no plain tensor" in told
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1000000000000), }\n"
    (tmp_path / "b.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64))
    assert "a NumPy file that is damaged" in refused(tmp_path / "b.npy")
    lying = struct.pack("<Q", 90) + b'{"x":{"dtype":"F32","shape":[999999999,999999],"data_offsets":[0,4]}}'.ljust(90)
    (tmp_path / "net.safetensors").write_bytes(lying + bytes(4))
    assert "a damaged safetensors file" in refused(tmp_path / "net.safetensors")


def test_tuples_without_end_do_not_end_the_program(tmp_path: Path) -> None:
    body = b"})" + b"\x85" * 300_000 + b"K\x01s."  # as a dictionary's key, which takes its hash
    plain, legacy = tmp_path / "net.pkl", tmp_path / "old.pt"
    plain.write_bytes(b"\x80\x04" + body)
    torch.save({}, legacy, _use_new_zipfile_serialization=False)
    legacy.write_bytes(legacy.read_bytes().replace(b"\x80\x02}q\x00.", b"\x80\x02" + body))
    for path in (plain, in_zip(tmp_path / "net.pt", b"\x80\x02" + body), legacy):
        assert "a pickle of more than 50000 tuples, which weights never need" in refused(path)


def test_modules_within_themselves_come_to_an_end(tmp_path: Path) -> None:
    path = tmp_path / "net.pkl"
    path.write_bytes(doubled(40))
    assert "no tree of PyTorch's modules" in refused(path)
    for name, value in (("_parameters", text("x")), ("_buffers", b"}" + text("x") + b"K\x01s")):
        state = b"}" + text(name) + value + b"s"
        path.write_bytes(b"\x80\x04}" + text("G_ema") + module(state) + b"s.")
        assert "no tree of PyTorch's modules" in refused(path) or "x is no plain tensor" in refused(path)


def module(state: bytes) -> bytes:
    """A persistent module of that state, as instructions."""
    return b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n}" + text("state") + state + b"s\x85R"


def doubled(levels: int) -> bytes:
    """A file whose G_ema holds a module twice, which holds another twice, and so on."""
    body = b"}"
    for level in range(levels):
        again = b"q" + bytes([level])
        got = b"h" + bytes([level])
        body = b"}" + text("_modules") + b"}" + text("a") + module(body) + again + b"s" + text("b") + got + b"ss"
    return b"\x80\x04}" + text("G_ema") + module(body) + b"s."


def test_what_is_no_plain_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    for path in (tmp_path, tmp_path / "pipe.pt", Path("/dev/zero")):
        assert "a folder, a pipe or a device; expected a file of weights" in refused(path)
    (tmp_path / "link.pt").symlink_to("/dev/zero")
    assert "a folder, a pipe or a device" in refused(tmp_path / "link.pt")
    (tmp_path / "gone.pt").symlink_to(tmp_path / "nothing")
    assert "not readable (No such file or directory)" in refused(tmp_path / "gone.pt")
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "kept.safetensors").symlink_to(tmp_path / "precious")
    take(published_files.converted(tmp_path / "good.pt", published_files.generator()), tmp_path / "kept.safetensors")
    assert (tmp_path / "precious").read_text() == "mine" and not (tmp_path / "kept.safetensors").is_symlink()


def test_archives_that_only_look_like_torchs(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w") as box:
        box.writestr("net/code/__torch__.py", "import os; os.mkdir('ran')")
    assert "a zip archive without a network (net/code/__torch__.py); unpack it" in refused(path, "farl-lapa")
    with zipfile.ZipFile(path, "w") as box:
        box.writestr("../../data.pkl", pickle.dumps({"x": 1}, 2))
    assert "truncated or damaged" in refused(path)
    data = bytearray(in_zip(path, pickle.dumps({}, 2)).read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + place] |= 1  # says that it is encrypted
    path.write_bytes(data)
    assert "a zip archive that cannot be read" in refused(path)
