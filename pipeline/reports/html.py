"""The frame of all pages that this project writes: one style, readable on a phone, no network needed."""

from html import escape

STYLE = """
:root { color-scheme: light dark }
body { font: 14px system-ui, sans-serif; margin: 2em; max-width: 100% }
img { max-width: 100% }
table { border-collapse: collapse; display: block; overflow-x: auto } th { font-weight: normal; color: #777 }
td img, th img { width: 128px; max-width: none; display: block }
figure { display: inline-block; margin: 8px } pre { overflow-x: auto }
"""


def page(title: str, *body: str) -> bytes:
    """A whole page as UTF-8 bytes; `title` is plain text and becomes the heading, `body` is HTML."""
    head = f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
    frame = f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style>'
    return "\n".join([head, frame, f"<h1>{escape(title)}</h1>", *body, "</html>\n"]).encode()


def image(source: str, text: str) -> str:
    """The HTML of an image; `text` says what it shows."""
    return f'<img src="{escape(source)}" alt="{escape(text)}" title="{escape(text)}">'
