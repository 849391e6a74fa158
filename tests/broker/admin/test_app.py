"""Putting the app together, and what it does with errors that nobody foresaw."""

import pytest

from broker.admin.app import create_app
from tests.broker.admin.browser import browser
from tests.broker.admin.fakes import FakeLedger, FakeMonitor, services


def test_a_bad_url_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="admin url"):
        create_app(services(), url="localhost", ledger=FakeLedger(), monitor=FakeMonitor())


async def test_an_unforeseen_error_is_a_page_that_tells_nothing() -> None:
    office = services()

    def fail(token: str) -> bool:
        raise RuntimeError("sk_live_canary")

    office.people.link_is_open = fail  # type: ignore[method-assign]
    async with browser(office) as client:
        response = await client.get("/setup?token=x")
    assert response.status_code == 500
    assert "canary" not in response.text
    assert "<h1>Internal error</h1>" in response.text
    assert response.headers["content-security-policy"].startswith("default-src 'none'")


async def test_static_files_are_ours_only() -> None:
    async with browser(services()) as client:
        assert (await client.get("/static/app.css")).status_code == 200
        assert (await client.get("/static/../app.py")).status_code == 404
        assert (await client.get("/static/%2e%2e/app.py")).status_code == 404
