"""What is said where there is no sandbox: what to install or to enable, by its cause."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from keybroker.errors import Unusable
from keybroker.sandbox import probe
from keybroker.sandbox.probe import Facts, advice, choose, look, state

WELL = Facts(root=False, admin=False, filtered=False, max_namespaces=15000, bubblewrap=True)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (replace(WELL, max_namespaces=0), "sysctl -w user.max_user_namespaces"),
        (replace(WELL, unprivileged=0), "sysctl -w kernel.unprivileged_userns_clone=1"),
        (replace(WELL, apparmor=1), "kernel.apparmor_restrict_unprivileged_userns=0"),
        (replace(WELL, root=True), "--cap-add SYS_ADMIN"),
        (replace(WELL, filtered=True), "--security-opt seccomp=unconfined"),
        (replace(WELL, bubblewrap=False), "apt-get install bubblewrap"),
        (WELL, "as another user"),
    ],
    ids=["off", "root only", "apparmor", "container", "filter", "no bwrap", "no cause"],
)
def test_the_cause_decides_what_is_advised(facts: Facts, said: str) -> None:
    assert said in advice(facts)


def test_settings_for_unprivileged_users_do_not_concern_root() -> None:
    facts = replace(WELL, root=True, admin=True, unprivileged=0, apparmor=1, bubblewrap=False)
    assert "bubblewrap" in advice(facts)


def test_this_machine_can_be_looked_at() -> None:
    facts = look()
    assert facts.max_namespaces is None or facts.max_namespaces >= 0


def test_where_neither_works_it_is_said_once_with_both_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never a run without a sandbox instead."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(probe, "ORDER", ("bubblewrap",))
    with pytest.raises(Unusable, match="bubblewrap: not installed") as caught:
        choose()
    assert "\n" not in str(caught.value)
    says, fix = state()
    assert fix and f"{says}: {fix}" == str(caught.value)


def test_a_back_end_that_fails_gives_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bwrap = tmp_path / "bwrap"
    bwrap.write_text("#!/bin/sh\necho 'bwrap: no namespaces today' >&2\nexit 1\n")
    bwrap.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(Unusable, match="no namespaces today"):
        choose("bubblewrap")
