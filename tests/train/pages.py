"""A reader of HTML pages that complains of what a browser would repair without a word."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser

_VOID = {"meta", "link", "input", "br", "hr", "img"}


class Page(HTMLParser):
    """A parsed page.

    Attributes:
        attributes: of every element, with its tag. texts: by tag, of the innermost element.
        links: values of href and src. tables: rows of cells of each table.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.links: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.feed(text)
        self.close()
        assert not self.stack, f"never closed: {self.stack}"
        ids = Counter(a["id"] for _, a in self.attributes if "id" in a)
        assert max(ids.values()) == 1, ids.most_common(3)
        self.ids = set(ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._element(tag, attrs)
        if tag not in _VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.stack, f"<{tag}/> outside of an svg"
        self._element(tag, attrs)

    def _element(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}>: an attribute twice in {names}"
        self.attributes.append((tag, dict(attrs)))
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag, f"</{tag}> does not close the last element"

    def handle_data(self, data: str) -> None:
        if self.stack and data.strip():
            self.texts.setdefault(self.stack[-1], []).append(data.strip())
            if {"th", "td"} & set(self.stack):
                self.tables[-1][-1][-1] += data
