"""Where packages come from on this machine: what the user set for pip, and uv's variables."""

import ast
import os
import re
import subprocess
import sys
from importlib.util import find_spec

from pipeline.errors import UserError

Settings = dict[str, list[str]]  # by pip's names, e.g. {"index-url": [...]}

_UV = {  # a setting of pip, and the variables by which uv knows it; of several the first that is set counts
    "index-url": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "extra-index-url": ("UV_INDEX", "UV_EXTRA_INDEX_URL"),
    "find-links": ("UV_FIND_LINKS",),
    "trusted-host": ("UV_INSECURE_HOST",),
    "no-index": ("UV_NO_INDEX", "UV_OFFLINE"),
}
_NAMED = re.compile(r"[\w.-]+=")  # uv lets an index have a name: `NAME=https://...`


def load() -> Settings:
    """The settings of both: places named for uv come first, then pip's. Every archive is checked by its sha256.

    Raises: UserError when pip cannot tell its settings.
    """
    settings = pip_settings()
    for key, values in uv_settings().items():
        settings[key] = values if key == "no-index" else [*values, *settings.get(key, [])]
    return settings


def uv_settings() -> Settings:
    """What uv's variables say, by pip's names."""
    settings = {}
    for key, variables in _UV.items():
        text = next(filter(None, map(os.environ.get, variables)), "")
        if values := [_NAMED.sub("", value, count=1) if _NAMED.match(value) else value for value in _split(key, text)]:
            settings[key] = values
    return settings


def _split(key: str, text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()] if key == "find-links" else text.split()


def pip_settings() -> Settings:
    """pip's own settings (files and PIP_* variables) as {"index-url": [...], ...}; the strongest source wins.

    Empty where this environment has no pip. Raises: UserError when pip cannot tell them.
    """
    if find_spec("pip") is None:
        return {}
    command = [sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, capture_output=True, text=True, check=False)
    if listing.returncode:
        reason = (listing.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"pip: `pip config list` failed ({reason}); mend pip's settings, then run again")
    ranks = {"global": 0, "download": 1, "install": 2, ":env:": 3}
    settings: dict[str, tuple[int, list[str]]] = {}
    for line in listing.stdout.splitlines():
        place, _, value = line.partition("=")
        section, _, key = place.rpartition(".")
        rank = ranks.get(section, -1)
        if rank >= settings.get(key, (0, []))[0]:
            settings[key] = rank, str(ast.literal_eval(value)).split()
    return {key: values for key, (_, values) in settings.items()}
