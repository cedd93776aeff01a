"""``--html``: what was found as one page that needs no server and no other file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from importlib.resources import files

from align_runtime.errors import InputError
from align_runtime.foreign_text import printable
from align_serving.search.index import Hit, Index
from align_serving.search.thumbnails import Thumbnails

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

Found = tuple[Index, list[Hit]]


def contact_sheet(title: str, queries: Sequence[tuple[str, Sequence[Found]]], thumbnails: Thumbnails) -> str:
    """The HTML of a page with a section for each query: its name, and what was found in each folder."""
    style = files(__package__).joinpath("page/search.css").read_text(encoding="utf-8")
    sections = "\n".join(_section(name, found, thumbnails) for name, found in queries)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_shown(title)}</title>
<style>
{style}</style>
</head>
<body>
<header><h1>{_shown(title)}</h1></header>
<main>
{sections}
</main>
</body>
</html>
"""


def _section(name: str, found: Sequence[Found], thumbnails: Thumbnails) -> str:
    parts = []
    for index, hits in found:
        cards = "\n".join(_card(index, hit, rank, thumbnails) for rank, hit in enumerate(hits, start=1))
        parts.append(
            f'<p class="muted">{len(hits)} of {len(index):,} {index.kind} in {_shown(str(index.stored.folder))}</p>\n'
            f'<ol class="{index.kind}">\n{cards}\n</ol>'
        )
    return f"<section>\n<h2>{_shown(name)}</h2>\n" + "\n".join(parts) + "\n</section>"


def _card(index: Index, hit: Hit, rank: int, thumbnails: Thumbnails) -> str:
    score = f'<span class="score">{rank} · {hit.score:.3f}</span>'
    name = f'<span class="id">{_shown(hit.id)}</span>'
    if index.kind == "texts":
        text = "the text was not found among the inputs" if hit.source is None else hit.source
        shown = f'<p class="{"missing" if hit.source is None else "text"}">{_shown(text)}</p>'
    else:
        shown = _image(index, hit, thumbnails)
    return f"<li>{shown}<div>{score} {name}</div></li>"


def _image(index: Index, hit: Hit, thumbnails: Thumbnails) -> str:
    try:
        data = base64.b64encode(thumbnails.of(index, hit.row)).decode("ascii")
    except InputError as reason:
        return f'<p class="missing">{_shown(reason.message)}</p>'
    return f'<img src="data:image/jpeg;base64,{data}" alt="{_shown(hit.id)}">'


def _shown(text: str) -> str:
    """`text` for HTML, without characters that hide or reorder."""
    return escape(printable(text, 2000))
