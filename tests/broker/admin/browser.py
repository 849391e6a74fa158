"""A client that acts like a browser at the admin app: cookies, Origin, CSRF fields."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx

from broker.admin.app import create_app
from tests.broker.admin.fakes import PASSWORD, FakeLedger, FakeMonitor, FakeServices, history

URL = "http://localhost:8081"


class Browser(httpx.AsyncClient):
    """Follows no redirects; `submit` posts a form as its page would."""

    csrf = ""

    async def visit(self, path: str) -> httpx.Response:
        response = await self.get(path)
        found = re.search(r'name="csrf" value="([^"]*)"', response.text)
        self.csrf = html.unescape(found[1]) if found else ""
        return response

    async def submit(self, path: str, **fields: str) -> httpx.Response:
        origin = f"{self.base_url.scheme}://{self.base_url.netloc.decode()}"
        return await self.post(path, data={"csrf": self.csrf, **fields}, headers={"origin": origin})

    async def sign_in(self, name: str, password: str = PASSWORD) -> None:
        await self.visit("/login")
        response = await self.submit("/login", name=name, password=password, next="/")
        assert response.status_code == 303, response.text
        await self.visit("/account")


@asynccontextmanager
async def browser(
    services: FakeServices,
    *,
    url: str = URL,
    ledger: FakeLedger | None = None,
    monitor: FakeMonitor | None = None,
) -> AsyncIterator[Browser]:
    app = create_app(
        services, url=url, ledger=ledger or history(), monitor=monitor or FakeMonitor()
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    host = urlsplit(url).netloc
    async with Browser(transport=transport, base_url=f"{urlsplit(url).scheme}://{host}") as client:
        yield client
