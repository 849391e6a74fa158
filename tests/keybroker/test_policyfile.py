"""The policy with what it includes: files below its directory, through no link, of a sane size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keybroker.errors import Unreadable
from keybroker.policyfile import MAX_BYTES, load_policy_file, read_policy
from rules.errors import InvalidFile

POLICY = "version: 1\ninclude:\n  - {file: ./packs/shop.yaml, agents: [bot]}\n"
PACK = """\
pack: shop
title: Shop
about: A shop.
hosts: [api.shop.example]
rules:
  - {id: read, class: low, match: {method: GET, path: "/**"}}
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    (tmp_path / "here" / "packs").mkdir(parents=True)
    (tmp_path / "here" / "packs" / "shop.yaml").write_text(PACK)
    path = tmp_path / "here" / "policy.yaml"
    path.write_text(POLICY)
    return path


def refused(path: Path) -> str:
    with pytest.raises(InvalidFile) as caught:
        load_policy_file(path)
    [problem] = caught.value.problems
    assert (problem.file, problem.line) == (str(path), 3)
    return problem.message


def test_a_file_is_included_and_counts_for_equality(policy: Path) -> None:
    found = read_policy(policy)
    assert [rule.id for rule in found.load()[0].rules] == ["shop.read"]
    assert found == read_policy(policy)
    (policy.parent / "packs" / "shop.yaml").write_text(PACK.replace("read", "see"))
    assert found != read_policy(policy)


def test_shipped_packs_are_read_with_it(policy: Path) -> None:
    policy.write_text("version: 1\ninclude: [{pack: stripe, agents: bot}]\n")
    assert list(read_policy(policy).sources.texts) == ["stripe"]


def test_the_policy_itself_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(Unreadable):
        read_policy(tmp_path / "none.yaml")


def test_a_missing_file_is_told_at_its_include(policy: Path) -> None:
    packs = policy.parent / "packs"
    (packs / "shop.yaml").rename(packs / "shops.yaml")
    there_is_no = "there is no file ./packs/shop.yaml"
    assert refused(policy) == f'{there_is_no} (did you mean "shops.yaml"?)'
    (packs / "shops.yaml").rename(packs / "crm.yaml")
    assert refused(policy) == there_is_no
    (packs / "crm.yaml").unlink()
    packs.rmdir()
    assert "./packs/shop.yaml cannot be read (No such file" in refused(policy)


def test_links_are_not_followed(policy: Path) -> None:
    secret = policy.parent.parent / "secret.yaml"
    secret.write_text("token: hunter2")
    shop = policy.parent / "packs" / "shop.yaml"
    shop.unlink()
    shop.symlink_to(secret)
    assert "symbolic link" in refused(policy)
    shop.unlink()
    shop.write_text(PACK)
    moved = policy.parent.parent / "elsewhere"
    shop.parent.rename(moved)
    shop.parent.symlink_to(moved)
    assert "symbolic link" in refused(policy)


def test_what_is_no_plain_file_keeps_nobody_waiting(policy: Path) -> None:
    shop = policy.parent / "packs" / "shop.yaml"
    shop.unlink()
    os.mkfifo(shop)
    assert "is not a plain file" in refused(policy)
    shop.unlink()
    shop.mkdir()
    assert "is not a plain file" in refused(policy)


def test_size_and_encoding_are_checked(policy: Path) -> None:
    shop = policy.parent / "packs" / "shop.yaml"
    shop.write_bytes(b"\xff")
    assert "is not UTF-8 text" in refused(policy)
    with shop.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert "is larger than 16 MiB" in refused(policy)
