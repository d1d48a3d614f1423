"""Pages for people, from the templates beside this file: one layout, no script, nothing loaded from elsewhere."""

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup

from pipeline import __version__
from pipeline.errors import printable
from pipeline.reports import colours


@dataclass(frozen=True)
class Table:
    """A table of texts: the titles of its columns, and its rows. The first column names the row.

    `best` holds (row, column) of the cells to stress, from 0. `spans` holds rows whose second cell is a text over
    that many columns.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: frozenset[tuple[int, int]] = frozenset()
    spans: Mapping[int, int] = field(default_factory=dict)


def render(template: str, **values: Any) -> bytes:
    """The page of a template (`gallery` for templates/gallery.html) as UTF-8 bytes.

    Whatever is in `values` is escaped, so that no name becomes markup; control characters are written out.
    """
    return _environment().get_template(f"{template}.html").render(values).encode(errors="backslashreplace")


def markdown(text: str) -> Markup:
    """The HTML of a Markdown text; HTML in it is shown as text, and its front matter is left out."""
    if text.startswith("---\n"):
        text = text.partition("\n---\n")[2]
    return Markup(_markdown().render(text))


def relative(target: Path, page: Path) -> str:
    """The path of `target` as seen from the folder of `page`."""
    return os.path.relpath(target, page.parent)


def url(path: str | PurePath) -> str:
    """A relative path as a URL."""
    return quote(os.fsencode(PurePath(path).as_posix()))


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["url"] = url
    palette: Mapping[str, Any] = {
        "regions": {name: colours.css(colour) for name, colour in colours.REGIONS.items()},
        "curves": [tuple(map(colours.css, pair)) for pair in colours.CURVES],
    }
    environment.globals.update(version=__version__, **palette)
    return environment


def _shown(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@functools.cache
def _markdown() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("table_open", lambda *_: '<div class="scroll" tabindex="0"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return parser
