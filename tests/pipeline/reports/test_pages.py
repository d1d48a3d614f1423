"""Templates: names stay text, addresses stay addresses, Markdown becomes a page."""

from pathlib import Path

from pipeline.reports import pages
from tests.support.html_pages import problems

HOSTILE = "<script>alert(1)</script>\"'&{{ 7 * 7 }}\x1b[31m\u202e\udcff"


def test_names_stay_text(tmp_path: Path) -> None:
    rows = [{"key": HOSTILE, "data": "data:image/png;base64,", "width": 1, "height": 1}]
    page = tmp_path / "page.html"
    page.write_bytes(pages.render("inspect", title=HOSTILE, text=HOSTILE, rows=rows))
    assert problems(page) == []
    text = page.read_text()
    assert "<script" not in text and "&lt;script&gt;alert(1)" in text and "{{ 7 * 7 }}" in text
    assert "\x1b" not in text and "\u202e" not in text and "\\udcff" in text


def test_an_address_is_quoted_whatever_the_name() -> None:
    assert pages.url("../my run/a#b?c%d.html") == "../my%20run/a%23b%3Fc%25d.html"
    assert pages.url(Path("javascript:alert(1)")) == "javascript%3Aalert%281%29"
    assert pages.url(Path("a\udcff")) == "a%FF"
    assert pages.relative(Path("/a/eval/x/evaluation.html"), Path("/a/x/index.html")) == "../eval/x/evaluation.html"


def test_markdown_becomes_html_without_front_matter_and_foreign_markup() -> None:
    text = pages.markdown("---\nlicense: mit\n---\n# Card\n\n| a | b |\n|---|---|\n| 1 | `x` |\n\n<script>1</script>\n")
    assert "license" not in text and "<h1>Card</h1>" in text and "<td>1</td>" in text and "<script" not in text
