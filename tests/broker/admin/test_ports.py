"""The real services have all that the admin surface asks of them."""

import inspect

import pytest

from broker.admin import ports
from broker.admin.ledger import LedgerReader
from broker.agents import Agents
from broker.changes import Changes
from broker.desk import Desk
from broker.devices import Devices
from broker.people import People
from tests.broker.admin import fakes


@pytest.mark.parametrize(
    ("port", "real", "fake"),
    [
        (ports.People, People, fakes.FakePeople),
        (ports.Devices, Devices, fakes.FakeDevices),
        (ports.Desk, Desk, fakes.FakeDesk),
        (ports.Agents, Agents, fakes.FakeAgents),
        (ports.Changes, Changes, fakes.FakeChanges),
        (ports.Ledger, LedgerReader, fakes.FakeLedger),
    ],
)
def test_real_and_fake_have_every_method_of_the_port(port: type, real: type, fake: type) -> None:
    for name, duty in inspect.getmembers(port, inspect.isfunction):
        if name.startswith("_"):
            continue
        for made in (real, fake):
            method = getattr(made, name)
            assert inspect.iscoroutinefunction(method) == inspect.iscoroutinefunction(duty)
            theirs, ours = inspect.signature(method).parameters, inspect.signature(duty).parameters
            assert len(theirs) >= len(ours), f"{made.__name__}.{name}"
            by_name = {n for n, p in ours.items() if p.kind is p.KEYWORD_ONLY}
            assert by_name <= set(theirs), f"{made.__name__}.{name}"
