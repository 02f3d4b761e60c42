"""Who may look at the dashboard, and what its visitors may do.

Where only this machine reaches the server, everyone who reaches it may do everything. Where other
machines reach it, a visitor needs a random token, which is in the address that the command prints,
and may upload images and start work only if the command allowed it.

The server tells its pages by an argument of their script, because pages run in the server's process
but import nothing of it.
"""

from __future__ import annotations

import hmac
import secrets
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote_plus

_LOOK_ONLY = "look-only"
_BYTES = 32
"""Randomness of a token; guessing one of 256 bits is hopeless."""
TOKEN = "token"
"""Name of the token in the query of an address."""


def script_arguments(folder: Path, *, actions: bool) -> list[str]:
    """Return the arguments of the pages' script.

    Args:
        folder: What the dashboard shows.
        actions: Whether visitors may upload images and start work.
    """
    return [str(folder), *([] if actions else [_LOOK_ONLY])]


def actions_allowed() -> bool:
    """Return whether the visitors of this dashboard may upload images and start work.

    They may where only this machine reaches the server, which includes pages that
    ``streamlit run`` serves, and elsewhere if the dashboard was started with ``--allow-actions``.
    """
    return _LOOK_ONLY not in sys.argv[2:]


def _random() -> str:
    return secrets.token_urlsafe(_BYTES)


@dataclass(frozen=True)
class Access:
    """A token that opens the dashboard once, and the cookie that a browser then sends.

    The cookie has another value than the token, so that neither can be learned from the other. Its
    name contains the port, because browsers send cookies to all ports of a host.
    """

    port: int
    base_path: str = ""
    token: str = field(default_factory=_random, repr=False)
    session: str = field(default_factory=_random, repr=False)

    @property
    def cookie(self) -> str:
        """Name of the cookie."""
        return f"attnscope_{self.port}"

    @property
    def set_cookie(self) -> str:
        """The ``Set-Cookie`` header of a visitor who has shown the token.

        Scripts cannot read the cookie, and pages of other sites cannot send it.
        """
        path = f"/{self.base_path}"
        return f"{self.cookie}={self.session}; Path={path}; HttpOnly; SameSite=Strict"

    def has_cookie(self, headers: Iterable[str]) -> bool:
        """Return whether one of the ``Cookie`` headers of a request has the right cookie."""
        pairs = [pair.strip().partition("=") for line in headers for pair in line.split(";")]
        # A list: the time does not tell which of several cookies is the right one.
        same = [_equal(value, self.session) for name, _, value in pairs if name == self.cookie]
        return any(same)

    def tokens_in(self, query: str) -> list[bool]:
        """Return for each token in the query of an address whether it is the right one."""
        return [
            _equal(unquote_plus(part.partition("=")[2]), self.token)
            for part in query.split("&")
            if _is_token(part)
        ]


def without_token(path: str, query: str) -> str:
    """Return an address on this server without the token.

    Args:
        path: The path that was asked for, decoded.
        query: What follows the ``?``, encoded.
    """
    # Browsers read an address that begins with two slashes, or backslashes, as another host's.
    place = "/" + quote(path.lstrip("/\\"), safe="/~")
    kept = "&".join(part for part in query.split("&") if part and not _is_token(part))
    return f"{place}?{kept}" if kept else place


def _is_token(part: str) -> bool:
    return unquote_plus(part.partition("=")[0]) == TOKEN


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())
