"""Devices: known to their person, for their time, under their password; forged ones never."""

from __future__ import annotations

import pytest

from broker.devices import DEVICE_TTL, Devices
from tests.support.services import World


@pytest.fixture
def devices(world: World) -> Devices:
    return world.services.devices


def test_a_device_is_known_to_its_person_for_its_time(world: World, devices: Devices) -> None:
    device = devices.new("alice")
    assert devices.knows("alice", device)
    assert world.open().devices.knows("alice", device), "in every process"
    assert not devices.knows("bob", device)
    world.clock.forward(DEVICE_TTL.total_seconds() - 1)
    assert devices.knows("alice", device)
    world.clock.forward(1)
    assert not devices.knows("alice", device)


def test_a_forged_device_is_not_known(devices: Devices) -> None:
    device = devices.new("alice")
    later = str(int(device.partition(".")[0]) + 1) + device[device.index(".") :]
    for forged in ("", "x", device[:-1], device + "0", "9" + device, "\ud800.1.2", "..", "1.2.3"):
        assert not devices.knows("alice", forged)
    assert not devices.knows("alice", later)
    assert not devices.knows("alice\0", device)


def test_a_new_password_ends_them_all(world: World, devices: Devices) -> None:
    before = devices.new("alice")
    world.services.people.set_password("alice", "correct horse battery", "cli:test")
    assert not devices.knows("alice", before)
    assert devices.knows("alice", devices.new("alice"))


def test_no_two_are_alike(devices: Devices) -> None:
    assert devices.new("alice") != devices.new("alice")
