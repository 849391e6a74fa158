"""`policy packs`: the list, one pack, what is not there; and what `policy check` says of them."""

from __future__ import annotations

from pathlib import Path

from rules import packs
from tests.keybroker.cli.conftest import Run


def test_packs_are_listed(run: Run) -> None:
    listed = run("policy", "packs")
    assert [line.split()[0] for line in listed.out.splitlines()] == list(packs.names())
    told = run("policy", "packs", "--json").json
    assert [pack["name"] for pack in told] == list(packs.names())
    assert {"hosts", "parameters", "credential", "classes"} <= told[0].keys()


def test_one_pack_is_shown(run: Run) -> None:
    shown = run("policy", "packs", "show", "stripe").out
    assert "high refund-create" in shown
    assert "undo: no" in shown
    told = run("policy", "packs", "show", "stripe", "--json").json
    assert {"id", "class", "calls", "summary", "impact", "undo"} == told["rules"][0].keys()
    assert "with host (needed): " in run("policy", "packs", "show", "kubernetes").out


def test_an_unknown_pack_is_one_line(run: Run) -> None:
    failed = run("policy", "packs", "show", "strip")
    assert failed.status == 1
    assert failed.err == 'keybroker: there is no pack "strip" (did you mean "stripe"?)\n'


def test_a_loosening_is_named_by_check(run: Run, workspace: Path) -> None:
    (workspace / "policy.yaml").write_text(
        "version: 1\ninclude:\n  - {pack: stripe, agents: bot}\n"
        "override:\n  stripe.refund-create: {risk: medium}\n"
    )
    done = run("policy", "check", "--json")
    [loosened] = [p for p in done.json["findings"] if p["code"] == "loosened"]
    assert (loosened["rule"], loosened["line"]) == ("stripe.refund-create", 5)
    assert loosened["severity"] == "warning"
    assert "loosened: shipped as held (high), now held (medium)" in run("policy", "check").err


def test_an_included_file_is_taken_from_beside_the_policy(run: Run, workspace: Path) -> None:
    (workspace / "policy.yaml").write_text(
        "version: 1\ninclude:\n  - {file: ./shop.yaml, agents: bot}\n"
    )
    failed = run("policy", "check")
    assert failed.status == 1
    assert "policy.yaml:3: error: there is no file ./shop.yaml" in failed.err
    (workspace / "shop.yaml").write_text(
        "pack: shop\ntitle: S\nabout: S.\nhosts: [shop.example]\n"
        'rules: [{id: read, class: low, match: {method: GET, path: "/**"}}]\n'
    )
    told = run("policy", "explain", "--as", "bot", "GET", "https://shop.example/x", "--json").json
    assert (told["effect"], told["rules"]) == ("allow", ["shop.read"])
