"""What a browser calls itself becomes a few known words, and never its own."""

import pytest

from broker.admin.devices import client_of

CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/149.0.0.0"


@pytest.mark.parametrize(
    ("user_agent", "words"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/2010 Firefox/140.0", "Firefox on Linux"),
        (CHROME + " Safari/537.36", "Chrome on Linux"),
        (CHROME + " Safari/537.36 Edg/149.0", "Edge on Linux"),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Version/19.0 Safari/604.1",
            "Safari on iPhone",
        ),
        ("curl/8.14", "curl"),
        ("", "An unknown program"),
        ("<script>alert(1)</script>", "An unknown program"),
        ("Linux" * 10_000, "An unknown program on Linux"),
    ],
)
def test_names(user_agent: str, words: str) -> None:
    assert client_of(user_agent) == words
