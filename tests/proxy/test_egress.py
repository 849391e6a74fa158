"""The egress guard: one resolution, judged addresses, pins; never Keybroker itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import ip_network

import pytest

from broker.errors import Refusal
from proxy.addresses import parse
from proxy.egress import EgressGuard, is_local


class Resolver:
    def __init__(self, **names: Sequence[str]) -> None:
        self.names = {name.replace("_", "."): found for name, found in names.items()}
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        await self.gate.wait()
        if host not in self.names:
            raise OSError("NXDOMAIN")
        return self.names[host]


async def refusal(guard: EgressGuard, host: str, port: int = 443) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await guard.check(host, port)
    return caught.value


async def test_public_addresses_are_pinned() -> None:
    guard = EgressGuard(resolve=Resolver(api_example=["8.8.8.8", "2606:4700::1"]))
    route = await guard.check("api.example", 443)
    assert (route.host, route.port) == ("api.example", 443)
    assert route.addresses == ("8.8.8.8", "2606:4700::1")
    assert guard.pins.addresses("api.example", 443) == route.addresses
    assert guard.pins.addresses("api.example", 80) == ()


async def test_of_mixed_addresses_only_the_good_are_used() -> None:
    guard = EgressGuard(resolve=Resolver(api_example=["10.0.0.1", "8.8.8.8", "::1"]))
    assert (await guard.check("api.example", 443)).addresses == ("8.8.8.8",)
    assert not guard.pins.holds("10.0.0.1", 443)


async def test_only_bad_addresses_are_refused_by_kind_not_by_address() -> None:
    guard = EgressGuard(resolve=Resolver(inner_example=["10.9.8.7", "169.254.169.254"]))
    error = await refusal(guard, "inner.example")
    assert error.code == "egress_refused"
    assert "private" in error.detail
    assert "metadata" in error.detail
    assert "10.9.8.7" not in error.detail
    assert guard.pins.addresses("inner.example", 443) == ()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254"])
async def test_literals_are_judged_without_dns(host: str) -> None:
    resolver = Resolver()
    assert (await refusal(EgressGuard(resolve=resolver), host)).code == "egress_refused"
    assert resolver.asked == []


async def test_the_name_that_leads_to_the_admin_page_is_refused_wherever_it_is() -> None:
    """A TLS proxy in front of the page has an address of its own, which may be a public one."""
    resolver = Resolver(kb_example=["8.8.8.8"])
    guard = EgressGuard(names=[("kb.example", 443)], resolve=resolver)
    error = await refusal(guard, "kb.example")
    assert (error.code, resolver.asked) == ("egress_refused", [])
    assert "own listeners" in error.detail
    assert (await guard.check("kb.example", 8443)).addresses == ("8.8.8.8",)


async def test_odd_spellings_end_up_judged_too() -> None:
    """What getaddrinfo would make of `0x7f.1` is an address like any other."""
    guard = EgressGuard()
    for host in ("0x7f.1", "2130706433", "127.1", "0177.0.0.1"):
        assert (await refusal(guard, host)).code == "egress_refused"


@pytest.mark.parametrize("host", ["localhost", "up.localhost", "a.b.localhost"])
async def test_localhost_is_loopback_without_dns(host: str) -> None:
    resolver = Resolver()
    assert (await refusal(EgressGuard(resolve=resolver), host)).code == "egress_refused"
    guard = EgressGuard([ip_network("127.0.0.0/8")], resolve=resolver)
    assert (await guard.check(host, 443)).addresses == ("127.0.0.1",)
    assert resolver.asked == []


async def test_an_unknown_name_is_unreachable() -> None:
    assert (await refusal(EgressGuard(resolve=Resolver()), "no.example")).code == (
        "upstream_unreachable"
    )


async def test_resolution_is_bounded_in_time() -> None:
    resolver = Resolver(slow_example=["8.8.8.8"])
    resolver.gate.clear()
    error = await refusal(EgressGuard(resolve=resolver, timeout=0.01), "slow.example")
    assert error.code == "upstream_unreachable"
    assert "in time" in error.detail
    resolver.gate.set()
    await asyncio.sleep(0)


async def test_a_burst_asks_once_and_one_cancelled_call_hurts_no_other() -> None:
    resolver = Resolver(api_example=["8.8.8.8"])
    resolver.gate.clear()
    guard = EgressGuard(resolve=resolver)
    calls = [asyncio.ensure_future(guard.check("api.example", 443)) for _ in range(20)]
    await asyncio.sleep(0)
    calls[0].cancel()
    await asyncio.sleep(0)
    resolver.gate.set()
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert all(getattr(one, "addresses", None) == ("8.8.8.8",) for one in done[1:])
    assert resolver.asked == ["api.example"]


async def test_a_failed_resolution_is_not_kept() -> None:
    resolver = Resolver()
    guard = EgressGuard(resolve=resolver)
    await refusal(guard, "api.example")
    await asyncio.sleep(0)
    resolver.names["api.example"] = ["8.8.8.8"]
    assert (await guard.check("api.example", 443)).addresses == ("8.8.8.8",)


async def test_a_name_that_turns_inward_is_refused_at_the_next_check() -> None:
    resolver = Resolver(api_example=["8.8.8.8"])
    guard = EgressGuard(resolve=resolver, keep=0)
    await guard.check("api.example", 443)
    resolver.names["api.example"] = ["127.0.0.1"]
    await asyncio.sleep(0)
    assert (await refusal(guard, "api.example")).code == "egress_refused"


ALL = [ip_network("0.0.0.0/0"), ip_network("::/0")]


@pytest.mark.parametrize(
    ("listener", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "::ffff:127.0.0.1"),
        ("127.0.0.1", "localhost"),
        ("127.0.0.1", "0.0.0.0"),
        ("0.0.0.0", "127.0.0.1"),
        ("0.0.0.0", "127.8.8.8"),
        ("0.0.0.0", "0.0.0.0"),
        ("0.0.0.0", "::ffff:127.0.0.1"),
        ("::", "127.0.0.1"),
        ("::", "::1"),
        ("::", "::"),
        ("8.8.8.8", "8.8.8.8"),
    ],
)
async def test_own_listeners_are_never_reachable(listener: str, host: str) -> None:
    guard = EgressGuard(ALL, listeners=[(listener, 8081)])
    if host == "localhost":
        assert (await guard.check(host, 8081)).addresses == ("::1",)
    else:
        error = await refusal(guard, host, 8081)
        assert "own listeners" in error.detail
    assert await guard.check(host, 8082)


async def test_listeners_can_be_added_later() -> None:
    guard = EgressGuard(ALL)
    await guard.check("127.0.0.1", 9)
    guard.protect("127.0.0.1", 9)
    await refusal(guard, "127.0.0.1", 9)


@pytest.mark.parametrize("listener", ["", "localhost"])
async def test_listeners_may_be_named(listener: str) -> None:
    guard = EgressGuard(ALL, listeners=[(listener, 8081)])
    for host in ("127.0.0.1", "::1", "localhost"):
        await refusal(guard, host, 8081)


def test_a_listener_must_resolve() -> None:
    with pytest.raises(OSError):
        EgressGuard(listeners=[("no-such-host.invalid", 1)])


def test_is_local() -> None:
    assert is_local(parse("127.0.0.1"))
    assert is_local(parse("0.0.0.0"))
    assert not is_local(parse("8.8.8.8"))
    assert not is_local(parse("2606:4700::1"))
