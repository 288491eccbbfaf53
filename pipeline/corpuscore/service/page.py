"""The page at /: one file that needs nothing from elsewhere, under a policy that allows nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape
from importlib.resources import files

from starlette.responses import Response

#: What the page's file has in place of the model's name.
_NAME = "MODEL_NAME"


class Page:
    """The page for one model, made once.

    Args:
        model: The name that it is asked for by.
    """

    def __init__(self, model: str) -> None:
        page = files("corpuscore.service").joinpath("page.html").read_text(encoding="utf-8")
        script, style = (_hash_of(tag, page) for tag in ("script", "style"))
        self._body = page.replace(_NAME, escape(model, quote=True)).encode()
        policy = (
            f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self._headers = {
            "content-security-policy": policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-cache",
        }

    def response(self) -> Response:
        """The page and its policy, which names its script and its style by their hashes."""
        return Response(self._body, media_type="text/html", headers=self._headers)


def _hash_of(tag: str, page: str) -> str:
    (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
