"""What a browser calls itself, in a few words, for the list of sessions. Pure."""

from __future__ import annotations

BROWSERS = (
    ("Edg/", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("HeadlessChrome/", "Chrome (headless)"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
    ("curl/", "curl"),
    ("python", "Python"),
)
"""The order matters: nearly all of them call themselves Safari, too."""
SYSTEMS = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("Macintosh", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)


def client_of(user_agent: str) -> str:
    """`Firefox on Linux`; what is not known stays unnamed, so that no one's words get into it."""
    browser = next((name for mark, name in BROWSERS if mark in user_agent), "An unknown program")
    system = next((name for mark, name in SYSTEMS if mark in user_agent), None)
    return browser if system is None else f"{browser} on {system}"
