"""The frame of a page: content security policy, style sheet, table of contents."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from pathlib import Path

from align_bench.page.markup import Markup, element

STYLE = Path(__file__).with_name("style.css")


def document(title: str, *body: str) -> str:
    """A complete HTML document. Its policy forbids scripts and external files; only its own style sheet is allowed."""
    return f"<!DOCTYPE html>\n{element('html', _head(title), element('body', *body), lang='en')}\n"


def _head(title: str) -> Markup:
    css = STYLE.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="generator", content="align-onnx"),
        element("title", title),
        element("style", Markup(css)),
    )


def contents(main: str, titles: Iterable[tuple[str, str]]) -> Markup:
    """Links to the sections that `main` has; `titles` are pairs of anchor and name."""
    items = [
        element("li", element("a", title, href=f"#{anchor}")) for anchor, title in titles if f'id="{anchor}"' in main
    ]
    return element("nav", element("ul", *items), aria_label="Contents")
