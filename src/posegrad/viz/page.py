"""A self-contained HTML page: its elements as text, and the template that holds them."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from string import Template

__all__ = [
    "card",
    "data_uri",
    "details",
    "escape",
    "facts",
    "grid",
    "legend",
    "page",
    "section",
    "table",
    "tiles",
]


def escape(text: object) -> str:
    """Text for HTML, in attributes, too.

    >>> escape('a < b & "c"')
    'a &lt; b &amp; &quot;c&quot;'
    """
    return html.escape(str(text), quote=True)


def page(title: str, subtitle: str, parts: Iterable[str]) -> str:
    """The page of parts that are HTML already; title and subtitle are text."""
    template = Template(files("posegrad.viz").joinpath("page.html").read_text("utf-8"))
    return template.substitute(
        title=escape(title), subtitle=escape(subtitle), body="\n".join(filter(None, parts))
    )


def section(title: str, *content: str, note: str = "") -> str:
    """A heading, a note (text) and HTML below it; nothing where the content is empty."""
    inner = "\n".join(filter(None, content))
    if not inner:
        return ""
    text = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section>\n<h2>{escape(title)}</h2>\n{text}{inner}\n</section>"


def grid(figures: Iterable[str], *, kind: str = "charts") -> str:
    """Cards side by side, as many as there is room for."""
    inner = "\n".join(figures)
    return f'<div class="grid {escape(kind)}">\n{inner}\n</div>' if inner else ""


def card(content: str, *, title: str = "", caption: str = "", tag: str = "") -> str:
    """A figure of HTML content with a heading above it, a tag beside that and a caption below (all text)."""
    beside = f' <span class="tag">{escape(tag)}</span>' if tag else ""
    head = f"<h3>{escape(title)}{beside}</h3>" if title or tag else ""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{head}{content}{below}</figure>"


def table(
    head: Sequence[tuple[str, str]],
    rows: Sequence[Sequence[str]],
    *,
    caption: str,
    marked: Sequence[str] = (),
    text_columns: Sequence[int] = (0,),
) -> str:
    """A table of text; the first cell of a row names it.

    Args:
        head: name and unit of each column.
        rows: as many cells each.
        caption: what the table shows.
        marked: a class for each row.
        text_columns: those set to the left.
    """
    kinds = [' class="text"' if k in text_columns else "" for k in range(len(head))]
    lines = [f'<div class="scroll"><table><caption>{escape(caption)}</caption>', "<thead><tr>"]
    for kind, (name, unit) in zip(kinds, head, strict=True):
        below = f"<small>{escape(unit)}</small>" if unit else ""
        lines.append(f'<th scope="col"{kind}>{escape(name)}{below}</th>')
    lines.append("</tr></thead><tbody>")
    for number, row in enumerate(rows):
        mark = f' class="{escape(marked[number])}"' if number < len(marked) and marked[number] else ""
        cells = [f'<th scope="row"{kinds[0]}>{escape(row[0])}</th>']
        cells += [f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds[1:], row[1:], strict=True)]
        lines.append(f"<tr{mark}>{''.join(cells)}</tr>")
    lines.append("</tbody></table></div>")
    return "\n".join(lines)


def tiles(values: Iterable[tuple[str, str, str]]) -> str:
    """The numbers that count, large: what, value, and a remark for each."""
    inner = "\n".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><dd>{escape(remark)}</dd></div>"
        for name, value, remark in values
    )
    return f'<dl class="tiles">\n{inner}\n</dl>'


def facts(pairs: Mapping[str, str]) -> str:
    """Names and what they mean, or their values."""
    inner = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs.items())
    return f'<dl class="facts">\n{inner}\n</dl>' if inner else ""


def details(summary: str, content: str) -> str:
    """HTML that is folded away until asked for."""
    return f"<details><summary>{escape(summary)}</summary>\n{content}\n</details>"


def legend(layers: Mapping[str, str]) -> str:
    """Switches of the pictures' layers: a check box for each class, with its label."""
    inner = "\n".join(
        f'<label><input type="checkbox" id="show-{escape(name)}" checked> <i class="key {escape(name)}"></i>'
        f"{escape(label)}</label>"
        for name, label in layers.items()
    )
    return f'<div class="legend">\n{inner}\n</div>'


def data_uri(content: bytes, kind: str) -> str:
    """An image within the page; kind is `png` or `jpeg`."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
