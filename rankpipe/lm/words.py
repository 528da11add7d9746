"""What a server said, in one short line."""

from __future__ import annotations

import json
import re
from html import unescape
from http import HTTPStatus
from typing import Any

WORDS = 300  # characters of a server's words that are shown
ERRORS = ("error", "message", "detail")  # where servers say what is wrong
PAGE = re.compile(r"\s*(<\?xml[^>]*>\s*)?(<!doctype html|<html)", re.IGNORECASE)
TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)


def words(said: Any) -> str:
    """Its error message, if it says one where others do; the title of a page."""
    if isinstance(said, bytes):
        try:
            said = json.loads(said)
        except ValueError:
            said = said.decode("utf-8", "replace")
    while isinstance(said, dict) and (inner := next((said[k] for k in ERRORS if said.get(k)), None)):
        said = inner
    if is_page(said):
        title = TITLE.search(said)
        said = "an HTML page" + (f", {' '.join(unescape(title[1]).split())!r}" if title else "")
    line = " ".join((said if isinstance(said, str) else json.dumps(said)).split())
    return line[:WORDS] + "..." if len(line) > WORDS else line


def is_page(said: Any) -> bool:
    """Whether it is an HTML page."""
    if isinstance(said, bytes):
        said = said.decode("utf-8", "replace")
    return isinstance(said, str) and PAGE.match(said) is not None


def refused(status: int, content: bytes) -> str:
    """An HTTP status, and what else was said."""
    phrase = next((s.phrase for s in HTTPStatus if s.value == status), "")
    return f"{status} {phrase}: {words(content) if content else 'without a word'}"


def astray(url: str, status: int, content: bytes) -> str:
    """The cure, where this may not be the place of a model's server."""
    if re.search(r"/v\d+\w*$", url):
        return "; is this the address of a model's server?" if is_page(content) else ""
    if is_page(content) or status in (404, 405):
        return f"; is {url} its whole address? Most servers have the API at {url}/v1"
    return ""
