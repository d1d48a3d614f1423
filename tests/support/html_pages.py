"""What a page of ours must be: valid, readable by everyone, and complete without a network."""

import re
from pathlib import Path
from urllib.parse import unquote

from justhtml import JustHTML

LOADING = {"src", "srcset", "data", "poster", "action", "formaction", "background", "xlink:href"}
HEADING = re.compile(r"h([1-6])")
OUTSIDE = re.compile(r"(?i)\s*([a-z][a-z0-9+.-]*:|//|/)")


def problems(page: Path) -> list[str]:
    """Everything that is wrong with a page. Raises: StrictModeError when the parser of HTML has to mend it."""
    text = page.read_text()
    document = JustHTML(text, strict=True, sanitize=False)
    nodes = document.query("*")
    found = [f"<{node.name}> is not expected" for node in nodes if node.name in ("script", "link", "iframe", "object")]
    found += [f"<{node.name}> has {name}" for node in nodes for name in node.attrs if name.startswith("on")]
    (root,) = document.query("html")
    if not root.attrs.get("lang") or not document.query('meta[name="viewport"]') or not document.query("title"):
        found.append("no language, viewport or title")
    for node in nodes:
        for name, value in node.attrs.items():
            if name in LOADING or name == "href":
                found += _reference(page, node.name, str(value), name != "href")
        if node.name == "img" and not (node.attrs.get("alt") or "").strip():
            found.append(f"image {node.attrs.get('src')} has no alternative text")
        if node.name == "svg" and not node.attrs.get("aria-label"):
            found.append("a chart has no label")
        if node.name == "th" and not node.attrs.get("scope") and not _within(node, "article"):
            found.append(f"header {node.to_text()!r} has no scope")
    found += [f"the style loads {match}" for match in re.findall(r"url\([^)]*\)|@import[^;]*", text)]
    levels = [int(match[1]) for node in nodes if (match := HEADING.fullmatch(node.name))]
    if levels.count(1) != 1 or any(after > before + 1 for before, after in zip([0, *levels], levels, strict=False)):
        found.append(f"headings of levels {levels}")
    return found


def _reference(page: Path, tag: str, value: str, loading: bool) -> list[str]:
    """Whether a URL is a file that is there; pages may link to others by https, but load nothing from there."""
    if value.startswith("data:image/") and tag == "img":
        return []
    if OUTSIDE.match(value):
        return [] if value.startswith("https://") and not loading else [f"<{tag}> leads outside: {value}"]
    return [] if (page.parent / unquote(value)).exists() else [f"<{tag}> leads to nothing: {value}"]


def _within(node: object, name: str) -> bool:
    while node is not None:
        if getattr(node, "name", "") == name:
            return True
        node = getattr(node, "parent", None)
    return False
