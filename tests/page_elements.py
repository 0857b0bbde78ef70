"""Elements of a page, for tests to look at."""

import re
from html.parser import HTMLParser

from lavis_dynrefer.pages.html_page import script_hash

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>" onload="alert(2)'
VOID = {"meta", "img", "rect", "path", "use", "image", "br", "input"}


class Page(HTMLParser):
    """Elements as dicts: tag, attributes, the text inside, and the elements around.

    >>> Page("<p class='big'>hello <b>you</b></p>").find("p", class_="big")[0]["text"]
    'hello you'
    """

    def __init__(self, html):
        super().__init__()
        self.html, self.elements, self._open = html, [], []
        self.feed(html)
        assert self._open == [], "elements left open"

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "text": "", **dict(attributes), "inside": list(self._open)}
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self._open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self._open:
            element["text"] = f"{element['text']} {' '.join(data.split())}".strip()

    def find(self, tag, *, within=None, **attributes):
        """Elements of a tag, also by `class_` and other attributes."""
        wanted = {key.rstrip("_"): value for key, value in attributes.items()}
        return [
            element
            for element in self.elements
            if element["tag"] == tag
            and all(element.get(key) == value for key, value in wanted.items())
            and (within is None or any(parent is within for parent in element["inside"]))
        ]

    @property
    def text(self):
        (body,) = self.find("body")
        return body["text"]

    @property
    def policy(self):
        """The content security policy."""
        (meta,) = (one for one in self.find("meta") if "http-equiv" in one)
        return meta["content"]

    @property
    def references(self):
        """Everything the page refers to, without the content of data URLs."""
        values = [one[key] for one in self.elements for key in ("src", "href") if key in one]
        return {value.split(",")[0] for value in values}

    def assert_harmless(self):
        """Nothing is loaded, and nothing runs but the script that the policy allows."""
        (script,) = re.findall(r"<script>(.*?)</script>", self.html, re.DOTALL)
        assert len(self.find("script")) == 1
        assert f"script-src '{script_hash(script)}'" in self.policy
        assert {one["tag"] for one in self.elements}.isdisjoint(
            {"iframe", "object", "embed", "link"}
        )
        assert not [key for one in self.elements for key in one if key.startswith("on")]
        assert "default-src 'none'" in self.policy
