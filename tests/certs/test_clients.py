"""The tables say each thing once, and of nothing that is not there."""

from __future__ import annotations

from certs.clients import CLIENTS, VARIABLES, WITHHELD


def test_names_every_variable_once() -> None:
    names = [variable.name for variable in VARIABLES]
    assert len(names) == len(set(names))
    assert not WITHHELD & set(names)


def test_names_every_client_once() -> None:
    names = [client.name for client in CLIENTS]
    assert len(names) == len(set(names))


def test_clients_need_variables_that_are_set() -> None:
    known = {variable.name for variable in VARIABLES}
    for client in CLIENTS:
        assert client.needs and set(client.needs) <= known, client.name
        assert client.refused
