"""The table of MQTT link implementations: name to factory.

A new MQTT library is one `link_*.py` and one line here; the contract suite picks it up.
It stands apart from the contract so that an implementation can import the contract.
"""

from __future__ import annotations

from live.link import Link, LinkFactory, LinkHandlers, LinkOptions
from live.link_paho import PahoLink

DEFAULT_LINK = "paho"
LINKS: dict[str, LinkFactory] = {"paho": PahoLink}


def make_link(options: LinkOptions, handlers: LinkHandlers, name: str = DEFAULT_LINK) -> Link:
    """A link that isn't open yet. Raises `KeyError` for a name that isn't in the table."""
    return LINKS[name](options, handlers)
