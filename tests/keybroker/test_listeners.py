"""Ports are claimed before anything starts, shared between workers, and never with a stranger."""

from __future__ import annotations

import contextlib
import socket

import pytest

from keybroker import listeners
from keybroker.errors import Unusable
from keybroker.values import Listen


def test_a_shared_claim_lets_workers_listen_and_takes_no_connection_itself() -> None:
    held = listeners.claim_shared(Listen("127.0.0.1", 0), "proxy")
    (place,) = listeners.places(held)
    workers = [socket.create_server((place.host, place.port), reuse_port=True) for _ in range(2)]
    for worker in workers:
        worker.setblocking(False)
    try:
        clients = [socket.create_connection((place.host, place.port), 5) for _ in range(12)]
        taken = 0
        for worker in workers:
            with contextlib.suppress(BlockingIOError):
                while True:
                    worker.accept()[0].close()
                    taken += 1
        assert taken == len(clients)
    finally:
        for sock in (*held, *workers, *clients):
            sock.close()


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("claim", [listeners.claim, listeners.claim_shared])
def test_a_port_in_use_names_the_setting(claim: object, reuse: bool) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=reuse) as other:
        port = other.getsockname()[1]
        with pytest.raises(Unusable) as caught:
            claim(Listen("127.0.0.1", port), "admin")  # type: ignore[operator]
    assert f"127.0.0.1:{port} is in use by another program" in str(caught.value)
    assert "`admin.listen` in keybroker.yaml" in str(caught.value)


def test_an_address_that_is_not_ours_is_said_to_be_so() -> None:
    with pytest.raises(Unusable, match="is no address of this machine"):
        listeners.claim(Listen("192.0.2.1", 0), "admin")


def test_the_admin_page_takes_both_loopback_addresses_on_one_port() -> None:
    held = listeners.claim(Listen("127.0.0.1", 0), "admin")
    try:
        found = listeners.places(held)
        assert len({place.port for place in found}) == 1
        assert found[0].host == "127.0.0.1"
        assert all(place.host == "::1" for place in found[1:])
    finally:
        listeners.close(held)
