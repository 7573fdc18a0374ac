"""Pages of reports: their elements, and how they look in a browser."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """The elements of a page in order, and a check that every one is closed where it should be."""

    def __init__(self, text):
        super().__init__()
        self.source = text
        self.elements, self.texts, self._open = [], [], []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in {"script", "style"}:
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))


def assert_closed(page):
    """Asserts that a page loads nothing, and that its policy allows nothing but its own script."""
    addresses = [
        attributes[name]
        for tag, attributes in page.elements
        for name in ("src", "href", "action", "data", "srcset")
        if name in attributes and tag != "a"
    ]
    assert all(address.startswith("data:") for address in addresses)
    assert "://" not in page.source
    (policy,) = (
        meta["content"]
        for meta in page.all("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; img-src data:; ")
    for tag in ("style", "script"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", page.source, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not any("style" in attributes for _, attributes in page.elements)
    assert not [name for _, found in page.elements for name in found if name.startswith("on")]


# In a browser

WIDE, PHONE = {"width": 1200, "height": 900}, {"width": 390, "height": 844}


def requests_outside(page):
    """Returns the addresses that were asked for, but for what the page itself holds."""
    return [url for url in page.requests if not url.startswith("data:")]


def fits_the_width(page):
    """Whether nothing has to be scrolled sideways, but for what scrolls in a box of its own."""
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def brightness(page, selector, style="backgroundColor"):
    """Returns how bright a color of the first of these elements is, from 0 to 255."""
    color = page.locator(selector).first.evaluate(f"e => getComputedStyle(e).{style}")
    return sum(map(int, color.strip("rgb()").split(",")[:3])) / 3
