"""Hosts, origins, cookies, headers and redirects of the admin surface."""

from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.admin.security import Refused, Site, bearer, check_csrf, local_path
from tests.broker.admin.browser import URL, browser
from tests.broker.admin.fakes import FakeServices, refund, services


@pytest.fixture
def office() -> FakeServices:
    made = services()
    made.people.put("dave")
    made.desk.put(refund())
    return made


@pytest.mark.parametrize(
    ("url", "origin", "secure"),
    [
        ("http://localhost:8081", "http://localhost:8081", False),
        ("http://localhost:80/", "http://localhost", False),
        ("https://Broker.example", "https://broker.example", True),
        ("http://[::1]:81", "http://[::1]:81", False),
    ],
)
def test_a_site_is_an_origin(url: str, origin: str, secure: bool) -> None:
    site = Site.from_url(url)
    assert site.origin == origin
    assert site.secure is secure
    assert site.session_cookie.startswith("__Host-") is secure


@pytest.mark.parametrize(
    "url", ["localhost:8081", "ftp://x", "http://", "http://x/path", "http://x?q", "http://u@x"]
)
def test_a_url_that_is_more_or_less_than_an_origin_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="admin url"):
        Site.from_url(url)


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        "/\t/evil.example",
        "/%0a\n",
        "evil",
        "",
        None,
        "/a b",
        "/caf\u00e9",
    ],
)
def test_no_redirect_leads_elsewhere(target: str | None) -> None:
    assert local_path(target) == "/"


@given(st.text(max_size=30).map(lambda text: "/" + text))
def test_every_target_stays_on_the_site(target: str) -> None:
    there = urlsplit(urljoin(URL, local_path(target)))
    assert (there.scheme, there.netloc) == ("http", "localhost:8081")


def test_local_targets_stay_what_they_are() -> None:
    assert local_path("/approvals/ap_1?x=1") == "/approvals/ap_1?x=1"


@pytest.mark.parametrize(
    ("values", "token"),
    [
        (["Bearer abc"], "abc"),
        (["bearer abc "], "abc"),
        (["Basic abc"], None),
        (["Bearer "], None),
        (["Bearer a", "Bearer a"], None),
        ([], None),
    ],
)
def test_one_bearer_token(values: list[str], token: str | None) -> None:
    assert bearer(values) == token


@pytest.mark.parametrize("expected", [None, ""])
def test_an_empty_csrf_token_is_never_right(expected: str | None) -> None:
    with pytest.raises(Refused):
        check_csrf({"csrf": ""}, expected)


@pytest.mark.parametrize(
    "path", ["/login", "/nope", "/healthz", "/api/v1/calls", "/static/app.css"]
)
async def test_every_answer_carries_the_security_headers(path: str, office: FakeServices) -> None:
    async with browser(office) as client:
        headers = (await client.get(path)).headers
    assert headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cache-control"] == ("no-cache" if "static" in path else "no-store")


@pytest.mark.parametrize("host", ["127.0.0.1:8081", "[::1]:8081", "localhost", "localhost:9999"])
async def test_other_names_of_this_machine_lead_to_the_one(host: str, office: FakeServices) -> None:
    async with browser(office) as client:
        response = await client.get("/setup?token=a%2Fb", headers={"host": host})
    assert response.status_code == 307
    assert response.headers["location"] == "http://localhost:8081/setup?token=a%2Fb"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8081", "127.0.0.1.evil.example", "["]
)
async def test_pages_are_not_served_to_other_names(host: str, office: FakeServices) -> None:
    async with browser(office) as client:
        response = await client.get("/login", headers={"host": host})
    assert response.status_code == 421


async def test_a_form_is_never_redirected_between_names(office: FakeServices) -> None:
    async with browser(office) as client:
        response = await client.post("/login", headers={"host": "127.0.0.1:8081"})
    assert response.status_code == 421


async def test_the_api_answers_on_any_name(office: FakeServices) -> None:
    async with browser(office) as client:
        for path in ("/healthz", "/metrics", "/api/v1/openapi.json"):
            assert (await client.get(path, headers={"host": "10.0.0.7:8081"})).status_code == 200


async def test_the_session_cookie_is_out_of_reach(office: FakeServices) -> None:
    async with browser(office) as client:
        await client.visit("/login")
        response = await client.submit("/login", name="dave", password="correct horse battery")
        cookies = response.headers.get_list("set-cookie")
    session = next(cookie for cookie in cookies if cookie.startswith("keybroker_8081="))
    assert {"HttpOnly", "SameSite=strict"} <= set(session.split("; "))
    assert "Secure" not in session


async def test_over_https_the_cookie_is_secure(office: FakeServices) -> None:
    async with browser(office, url="https://broker.example") as client:
        await client.visit("/login")
        response = await client.submit("/login", name="dave", password="correct horse battery")
        cookies = response.headers.get_list("set-cookie")
    session = next(cookie for cookie in cookies if cookie.startswith("__Host-keybroker="))
    assert "Secure" in session
    assert "Path=/" in session
    assert "Domain" not in session
    assert response.headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize(
    ("url", "lasting"),
    [
        ("https://broker.example", True),
        ("http://broker.example", False),
        ("https://localhost:8081", False),
        ("https://keybroker.localhost:8081", False),
        ("https://127.0.0.1:8081", False),
    ],
)
def test_only_a_name_of_its_own_is_told_to_stay_with_https(url: str, lasting: bool) -> None:
    """HSTS is for a name, whatever the port: on localhost it would break other programs."""
    assert Site.from_url(url).lasting is lasting


@pytest.mark.parametrize(
    "origin", [None, "null", "http://localhost:3000", "https://localhost:8081"]
)
async def test_a_vote_from_another_origin_is_refused(
    origin: str | None, office: FakeServices
) -> None:
    async with browser(office) as client:
        await client.sign_in("dave")
        response = await client.post(
            "/approvals/ap_01/vote",
            data={"csrf": client.csrf, "decision": "deny"},
            headers={} if origin is None else {"origin": origin},
        )
    assert response.status_code == 403
    assert office.desk.seen == []


@pytest.mark.parametrize("token", ["", "wrong", "\u00e9"])
async def test_a_vote_without_the_csrf_token_is_refused(token: str, office: FakeServices) -> None:
    async with browser(office) as client:
        await client.sign_in("dave")
        response = await client.submit("/approvals/ap_01/vote", csrf=token, decision="deny")
    assert response.status_code == 403
    assert office.desk.seen == []


@pytest.mark.parametrize(
    "path",
    [
        "/approvals/ap_01/vote",
        "/logout",
        "/account/tokens",
        "/account/sessions/end",
        "/login",
        "/setup",
    ],
)
async def test_every_form_needs_origin_and_token(path: str, office: FakeServices) -> None:
    async with browser(office) as client:
        await client.sign_in("dave")
        assert (await client.post(path, data={"csrf": client.csrf})).status_code == 403
        assert (await client.submit(path, csrf="wrong")).status_code == 403


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{}", "application/json", 415),
        (b"csrf=a&csrf=b", "application/x-www-form-urlencoded", 400),
        (b"csrf=%ff", "application/x-www-form-urlencoded", 400),
        (b"csrf", "application/x-www-form-urlencoded", 400),
        (b"x=" + b"y" * 70_000, "application/x-www-form-urlencoded", 413),
        (b"\xc3\xa9=1", "application/x-www-form-urlencoded", 400),
    ],
)
async def test_odd_forms_are_refused(
    content: bytes, kind: str, status: int, office: FakeServices
) -> None:
    async with browser(office) as client:
        await client.sign_in("dave")
        headers = {"origin": URL, "content-type": kind}
        response = await client.post("/logout", content=content, headers=headers)
    assert response.status_code == status
