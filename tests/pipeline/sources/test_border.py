"""A promise that a test holds to: nothing vanishes without a word. And the border between the user's files and ours."""

import dataclasses
import io
import json
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from click.testing import CliRunner
from PIL import Image

from pipeline.caches import reader
from pipeline.context import Context
from pipeline.runner.spec import StageSpec
from pipeline.sources.scan import LeftOut, scan
from stages.apply import recipe
from stages.cli.main import cli
from stages.preprocess import align as align_stage

pillow_heif.register_heif_opener()


def image(shade: int, kind: str = "JPEG") -> bytes:
    """An image of a little noise around one shade: each shade is another file."""
    rgb = np.random.default_rng(shade).integers(shade, shade + 9, (80, 80, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, kind)
    return data.getvalue()


def put(folder: Path, contents: dict[str, bytes]) -> None:
    for name, data in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def tar(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def paths(place: Path, **options: object) -> tuple[list[str], str]:
    left = LeftOut()
    return sorted(source.path for source in scan(place, left=left, **options) if not source.problem), str(left)


def align(cache: Path, content: Path, style: Path) -> str:
    words = [f"--cache={cache}", f"--content={content}", f"--style={style}", "--profile=tiny", "--device=cpu"]
    result = CliRunner().invoke(cli, ["align", *words])
    assert result.exit_code == 0, result.output
    return result.stderr


def test_files_are_judged_by_their_first_bytes_and_what_is_not_taken_is_counted(tmp_path: Path) -> None:
    content, style = tmp_path / "content", tmp_path / "style"
    heic, raw = b"\0\0\0\x18ftypheic" + bytes(99), b"II*\0\x08\0\0\0" + bytes(99)
    put(
        content,
        {
            "a.jpg": image(1),
            "b.jpg?width=300": image(2),
            "c.JPG&x=1": image(3, "PNG"),
            "without": image(4, "WEBP"),
            "d.jfif": image(5),
            "e.bak": image(6, "GIF"),
            "f.jpg.part": image(7, "TIFF"),
            "Tom & Jerry's": image(8, "BMP"),
            "g.dat": image(9, "PPM"),
            "h.1": image(10, "AVIF"),
            "IMG_1.HEIC": image(21, "HEIF"),
            "IMG_2": image(22, "HEIF"),
            "in.zip?dl=1": zipped({"i.jpg?x": image(11), "j": image(12), "k.doc": b"text", "l.raw": raw}),
            "in": tar({"m": image(13), "7.jpg": image(14), "7.bin": image(15), "7.cls": b"3"}),
            "photo.heic": heic,
            "photo": heic + b"x",
            "photo.dng": raw,
            "photo.tar.xz": lzma.compress(tar({"a.jpg": image(16)})),
            "drawing.svg": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
            "letter.docx": zipped({"word/media/a.jpg": image(17)}),
            "notes.txt": b"text",
            "more.txt": b"text",
            "film.mp4": b"\0\0\0\x18ftypisom" + bytes(99),
        },
    )
    put(style, {"s.jpg": image(20)})
    os.mkfifo(content / "pipe")
    told = align(tmp_path / "cache", content, style)
    images = tmp_path / "cache/content/images.h5"
    taken = {row["path"] for row in reader.read_rows(images, reader.keys(images), ["path"])}
    assert taken == {
        "a.jpg", "b.jpg?width=300", "c.JPG&x=1", "without", "d.jfif", "e.bak", "f.jpg.part", "Tom & Jerry's", "g.dat",
        "h.1", "IMG_1.HEIC", "IMG_2", "in.zip?dl=1/i.jpg?x", "in.zip?dl=1/j", "in/m", "in/7.jpg",
    }  # fmt: skip
    lines = map(json.loads, (tmp_path / "cache/content/rejects.jsonl").read_text().splitlines())
    reasons = [line["reason"] for line in lines]
    assert len(reasons) == 7, reasons
    everything = " | ".join(reasons)
    assert "unpack it, or pack it as .zip or .tar.gz" in everything and "an SVG drawing: not a picture" in everything
    assert "a further field of the sample whose picture is '7.jpg'" in everything
    (line,) = [line for line in told.splitlines() if "not read" in line]
    assert line == (
        "align content: not read: 6 files that are no images (2 .txt, .cls, .doc, .docx, 1 more), "
        "1 file that cannot be opened (pipe)"
    )


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.heic", b"\0\0\0\x18ftypheic" + bytes(99), "a HEIC picture: not a picture in a known format"),
        ("a.jpg", b"\0\0\0\x18ftypmif1" + bytes(99), "a HEIC picture: not a picture in a known format"),
        ("a", b"\xff\x0a" + bytes(99), "a JPEG XL picture: not a picture"),
        ("a", b"8BPS\0\1" + bytes(99), "a Photoshop picture: not a picture"),
        ("a.DNG", b"II*\0" + bytes(99), "a raw photo (.dng), which is not developed here; save it as a JPEG or PNG"),
        ("a.raf?x", b"FUJIFILMCCD-RAW", "a raw photo (.raf), which is not developed here"),
        ("a", b"FUJIFILMCCD-RAW" + bytes(99), "a raw photo: not a picture"),
    ],
)
def test_a_picture_that_cannot_be_read_is_a_reject_with_the_way_out(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    put(tmp_path / "content", {name: data, "good.jpg": image(1)})
    put(tmp_path / "style", {"good.jpg": image(1)})
    align(tmp_path / "cache", tmp_path / "content", tmp_path / "style")
    (line,) = (tmp_path / "cache/content/rejects.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"].startswith(reason) and "save it as a JPEG or PNG" in line


def test_system_folders_are_never_inputs(tmp_path: Path) -> None:
    names = ["@eaDir/a.jpg", ".Trash/b.jpg", "__MACOSX/c.jpg", ".git/d.jpg", "#recycle/e.jpg", "$RECYCLE.BIN/f.jpg",
             "lost+found/g.jpg", ".thumbnails/h.jpg", "sub/@EADIR/i.jpg", "._a.jpg", "Thumbs.db"]  # fmt: skip
    put(tmp_path / "in", {name: image(1) for name in names} | {"a.jpg": image(2), "sub/b.jpg": image(3)})
    found, told = paths(tmp_path / "in")
    assert found == ["a.jpg", "sub/b.jpg"]
    assert told.startswith("not read: 11 hidden or system entries (")
    (tmp_path / "in.zip").write_bytes(zipped({"__MACOSX/a.jpg": image(1), "a.jpg": image(2), "@eaDir/b": image(3)}))
    assert paths(tmp_path / "in.zip") == (["a.jpg"], "not read: 2 hidden or system entries (@eaDir, __MACOSX)")


def test_what_this_program_made_is_never_an_input(tmp_path: Path) -> None:
    content, style = tmp_path / "content", tmp_path / "style"
    put(content, {"a.jpg": image(1), "cells/own.jpg": image(2), "grids/own.png": image(3)})
    put(style, {"s.jpg": image(4)})
    for _ in range(2):  # the cache lies right among the images
        assert "align content: 3 inputs = 3 cached" in align(content, content, style)
    align(content / "other cache", content, style)
    put(
        content,
        {
            "other cache/samples/samples.json": b'{"recipe": {}, "files": ["content/x.jpg"]}',
            "other cache/samples/content/x.jpg": image(5),
            "other cache/samples/content/own.jpg": image(6),
            "other cache/shards/index.json": b'{"members": {}}',
            "other cache/shards/content-train-000000.tar": tar({"a.jpg": image(7)}),
            "other cache/shards/own.tar": tar({"own.jpg": image(8)}),
            "runs/x/log.jsonl": b"{}",
            "runs/x/grids/step-000010.png": image(9, "PNG"),
            "runs/x/grids/own.png": image(10, "PNG"),
            "runs/eval/x/results.json": b"{}",
            "runs/eval/x/table.md": b"",
            "runs/eval/x/cells/0-0.jpg": image(11),
            "runs/demo/gallery.stamp": b"",
            "runs/demo/sheet.png": image(12, "PNG"),
            "runs/demo/cells/0-1.jpg": image(13),
            "runs/demo/gallery.html": b"<html>",
            "runs/demo/index.html": b"<html>",
            "runs/x/training.html": b"<html>",
            "runs/eval/x/evaluation.html": b"<html>",
            "me-klimt.PNG": recipe.mark(image(14, "PNG"), None),
        },
    )
    found, told = paths(content)
    assert found == [
        "a.jpg", "cells/own.jpg", "grids/own.png", "other cache/samples/content/own.jpg",
        "other cache/shards/own.tar/own.jpg", "runs/x/grids/own.png",
    ]  # fmt: skip
    assert "15 files made by this program" in told
    # The cache and the run of this call are not read at all, wherever they lie.
    inner, told = paths(content, outside={content / "other cache": "the cache folder", content / "runs/x": "the run"})
    assert inner == ["a.jpg", "cells/own.jpg", "grids/own.png"]
    assert paths(content / "me-klimt.PNG")[0] == ["me-klimt.PNG"]  # named by itself it is taken
    assert told.endswith("the cache folder (other cache), the run (runs/x)")
    first = align(content / "other cache", content, style)
    assert align(content / "other cache", content, style) == first.replace("1 computed", "0 computed")


def test_overlapping_collections_are_read_once(tmp_path: Path) -> None:
    content = tmp_path / "content"
    put(content, {"a.jpg": image(1), "b.jpg": image(2), "styles/s.jpg": image(3)})
    told = align(tmp_path / "one", content, content / "styles")
    assert reader.keys(tmp_path / "one/content/images.h5") == ["a", "b"]
    assert reader.keys(tmp_path / "one/style/images.h5") == ["s"]
    assert told.count("not read: the style images (styles)") == 1
    (tmp_path / "link").symlink_to(content / "styles")
    align(tmp_path / "two", content, tmp_path / "link")
    assert reader.keys(tmp_path / "two/content/images.h5") == ["a", "b"]
    told = align(tmp_path / "three", content, content / "b.jpg")
    assert reader.keys(tmp_path / "three/content/images.h5") == ["a", "styles__s"]
    assert "not read: the style images (b.jpg)" in told
    align(tmp_path / "four", content / "styles", content)
    assert reader.keys(tmp_path / "four/style/images.h5") == ["a", "b"]
    align(tmp_path / "five", content, content)  # the same images may be both
    assert reader.keys(tmp_path / "five/style/images.h5") == ["a", "b", "styles__s"]


def test_a_new_version_of_align_recomputes_only_what_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "content", {"a.jpg": image(1), "b.jpg": image(2)})
    words = [f"--cache={tmp_path / 'cache'}", "--profile=tiny"]
    places = [f"--content={tmp_path / 'content'}", f"--style={tmp_path / 'content'}"]
    now = align_stage.spec

    def former(ctx: Context, collection: str = "content") -> StageSpec:
        return dataclasses.replace(now(ctx, collection), version=2)

    def call(name: str) -> str:
        result = CliRunner().invoke(cli, [*name.split(), *words, *(places if "align" in name else [])])
        assert result.exit_code == 0, result.output
        return result.output

    monkeypatch.setattr(align_stage, "spec", former)
    call("align"), call("masks")
    monkeypatch.setattr(align_stage, "spec", now)
    why = "turned and leaning faces stand upright more exactly; colour profiles and odd depths count"
    assert f"2 rows stale: version 2 -> 10 ({why})" in call("explain align")
    assert "(2 computed now)" in call("align")
    assert "(0 computed now)" in call("masks") and "(2 computed now)" not in call("masks")
