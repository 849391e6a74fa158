"""The policy file is followed: settled changes only, and a bad one changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.errors import StoreUnavailable
from certs.serving import PairOfFiles, Serving
from keybroker.errors import Unreadable
from keybroker.policyfile import PolicyFile
from keybroker.watch import CertificateWatch, PolicyWatch
from rules.errors import InvalidFile, Problem
from tests.support.throwaway_ca import ThrowawayCA


class Store:
    """Publishes texts that say `good`; can be broken."""

    def __init__(self) -> None:
        self.published: list[str] = []
        self.complaints: list[str] = []
        self.broken = False

    def publish(self, found: PolicyFile) -> None:
        text = found.text
        if self.broken:
            raise StoreUnavailable("the disk is full")
        if "good" not in text:
            raise InvalidFile([Problem("policy.yaml", 3, "no"), Problem("policy.yaml", 5, "nor")])
        self.published.append(text)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text("good 1")
    return file


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def watch(file: Path, store: Store) -> PolicyWatch:
    watch = PolicyWatch(file, publish=store.publish, complain=store.complaints.append)
    watch.first()
    return watch


def test_a_change_is_published_once_it_has_settled(
    file: Path, store: Store, watch: PolicyWatch
) -> None:
    for text in ("good 2, half", "good 2, whole"):
        file.write_text(text)
        watch.look()
    assert store.published == ["good 1"]
    watch.look()
    watch.look()
    assert store.published == ["good 1", "good 2, whole"]


def test_a_signal_does_not_wait(file: Path, store: Store, watch: PolicyWatch) -> None:
    file.write_text("good 2")
    watch.look(now=True)
    assert store.published == ["good 1", "good 2"]


def test_a_bad_file_is_reported_once_with_everything_and_the_old_one_stays(
    file: Path, store: Store, watch: PolicyWatch
) -> None:
    file.write_text("bad")
    for _ in range(4):
        watch.look()
    (complaint,) = store.complaints
    assert "policy.yaml:3: error: no\npolicy.yaml:5: error: nor" in complaint
    assert "the one before stays in force" in complaint
    file.write_text("good 1")
    watch.look()
    watch.look()
    assert store.published == ["good 1", "good 1"]


def test_a_missing_file_is_reported_and_its_return_is_noticed(
    file: Path, store: Store, watch: PolicyWatch
) -> None:
    file.unlink()
    watch.look()
    watch.look()
    assert len(store.complaints) == 1
    assert "there is no file" in store.complaints[0]
    file.write_text("good 2")
    watch.look()
    watch.look()
    assert store.published[-1] == "good 2"


def test_what_the_store_refused_is_tried_again(
    file: Path, store: Store, watch: PolicyWatch
) -> None:
    file.write_text("good 2")
    store.broken = True
    watch.look()
    watch.look()
    assert "the disk is full" in store.complaints[0]
    store.broken = False
    watch.look()
    assert store.published[-1] == "good 2"


def test_nothing_starts_with_a_bad_or_missing_file(tmp_path: Path, store: Store) -> None:
    file = tmp_path / "policy.yaml"
    watch = PolicyWatch(file, publish=store.publish, complain=store.complaints.append)
    with pytest.raises(Unreadable):
        watch.first()
    file.write_text("bad")
    with pytest.raises(InvalidFile):
        watch.first()


def test_of_a_certificate_it_is_said_what_became_of_it(tmp_path: Path) -> None:
    ca, file = ThrowawayCA(), tmp_path / "both.pem"
    file.write_bytes(ca.issue(["a.example"]))
    told: list[str] = []
    complaints: list[str] = []
    serving = Serving(PairOfFiles(file, file), ["http/1.1"])
    watch = CertificateWatch("admin.tls", serving, tell=told.append, complain=complaints.append)
    watch.look()
    assert (told, complaints) == ([], [])
    file.write_bytes(ca.issue(["b.example"]))
    watch.look()
    watch.look()
    (line,) = told
    assert line.startswith("`admin.tls`: a new certificate, valid until 20")
    file.write_bytes(b"")
    watch.look()
    watch.look()
    (line,) = complaints
    assert line.startswith("`admin.tls`: ")
    assert line.endswith("\nthe certificate before stays in use")
