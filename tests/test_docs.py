"""What the guides say is held against the program: links, names, tables, policies, settings."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from keybroker.settings import Settings, load_settings
from rules.load import load_policy
from rules.matches import MATCH
from rules.schema import CREDENTIAL, RULE, TIER
from rules.trial.cases import CASE, EXPECT, read_cases
from rules.trial.requests import REQUEST
from tests.support.docs import GUIDES, PARTS, ROOT, brought_up_to_date, walk

PAGES = sorted([*GUIDES.glob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"])
HOUSE = ("audit", "broker", "certs", "keybroker", "proxy", "rules")

_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    return _FENCE.sub("", text_of(page))


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(page: str, heading: str) -> dict[str, list[str]]:
    """The rows of the tables under a heading, by what stands as code in the first cell."""
    _, _, below = text_of(GUIDES / page).partition(f"{heading}\n")
    section = re.split(r"^#+ ", below, maxsplit=1, flags=re.MULTILINE)[0]
    found = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `") and (names := _CODE.findall(cells[0])):
            found[names[0]] = cells[1:]
    return found


# Form


@pages
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(prose(page)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.name}: {target}"


@pages
def test_fences_are_closed(page: Path) -> None:
    assert "```" not in prose(page)


@pages
def test_no_machine_is_named(page: Path) -> None:
    """Guides hold on every machine: no home of anybody's, no host of anybody's network."""
    assert not re.search(r"/(root|work|tmp)/|/home/(?!keybroker|agent)", text_of(page))


@pages
def test_what_is_generated_is_up_to_date(page: Path) -> None:
    """If this fails, run `python -m tests.support.docs`."""
    assert text_of(page) == brought_up_to_date(text_of(page))


def test_every_part_stands_somewhere() -> None:
    whole = "".join(map(text_of, PAGES))
    assert all(whole.count(f"<!-- generated: {name} -->") == 1 for name in PARTS)


def test_readme_names_every_guide() -> None:
    readme = text_of(ROOT / "README.md")
    assert [g.name for g in GUIDES.glob("*.md") if f"(docs/{g.name})" not in readme] == []


# Policies and settings in the guides


def yaml_blocks() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for kind, block in _FENCE.findall(text_of(page)):
            heredocs = re.findall(r"<<'YAML'\n(.*?)^YAML$", block, re.DOTALL | re.MULTILINE)
            for text in [block] if kind == "yaml" else heredocs:
                yield page.name, text


@pytest.mark.parametrize(("page", "block"), list(yaml_blocks()))
def test_yaml_blocks_load(page: str, block: str, tmp_path: Path) -> None:
    value = yaml.safe_load(block)
    if isinstance(value, list):
        read_cases(block, page)
    elif "version" in value:
        _, warnings = load_policy(block)
        assert [warning for warning in warnings if warning.code != "shadow"] == []
    else:
        load_settings(block, file=page, base=tmp_path)


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of the settings, dotted; those of mappings and the mappings that may be words."""
    for name, field in model.model_fields.items():
        inner = next((m for m in models_in(field.annotation)), None)
        if inner is None or name in ("vault", "tls"):
            yield prefix + name
        if inner is not None:
            yield from keys_of(inner, f"{prefix}{name}.")


def models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from models_in(argument)


def test_settings_table_has_every_key() -> None:
    assert set(rows("deployment.md", "## Settings")) == set(keys_of(Settings))


def test_settings_table_has_the_defaults(tmp_path: Path) -> None:
    """A file that writes out all the defaults of the table means the same as an empty one."""
    written: dict[str, object] = {}
    for key, (_, default) in rows("deployment.md", "## Settings").items():
        value = _CODE.fullmatch(default)
        if value is None or key.startswith(("vault.", "egress.proxy.")) or "PORT" in default:
            continue
        *parents, last = key.split(".")
        at = written
        for parent in parents:
            at = at.setdefault(parent, {})  # type: ignore[assignment]
        at[last] = yaml.safe_load(value[1])
    assert len(written) == 7
    text = yaml.safe_dump(written)
    assert load_settings(text, file="", base=tmp_path) == Settings()


@pytest.mark.parametrize(
    ("heading", "fields"),
    [
        ("## The file", ("version", "mode", "credentials", "approvers", "tiers", "rules")),
        ("## Rules", RULE),
        ("## Tiers", TIER),
    ],
)
def test_policy_guide_has_every_field(heading: str, fields: tuple[str, ...]) -> None:
    assert set(rows("policy.md", heading)) == set(fields)


def test_guide_to_matching_has_every_field() -> None:
    assert set(rows("policy-match.md", "## Fields")) == set(MATCH)


@pytest.mark.parametrize(
    ("heading", "fields"),
    [("## A case", CASE), ("## A request", REQUEST), ("## What is expected", EXPECT)],
)
def test_guide_to_tests_has_every_field(heading: str, fields: tuple[str, ...]) -> None:
    assert set(rows("policy-tests.md", heading)) == set(fields)


def test_policy_guide_has_every_field_of_credentials() -> None:
    assert set(CREDENTIAL) <= set(rows("policy.md", "## Credentials"))


def test_tier_table_has_the_built_in_values() -> None:
    """Writing out the table's two columns changes nothing."""
    columns = rows("policy.md", "## Tiers")
    for column, name in ((1, "medium"), (2, "high")):
        fields = {k: c[column].strip("`") for k, c in columns.items() if len(c) > column}
        body = ", ".join(f"{k}: {v}" for k, v in fields.items() if v)
        spelt, _ = load_policy(f"version: 1\ntiers: {{{name}: {{{body}}}}}\n")
        assert spelt.tiers == load_policy("version: 1\n")[0].tiers


# Commands and records


def test_every_command_is_in_the_reference() -> None:
    from keybroker.cli import cli

    reference = text_of(GUIDES / "cli.md")
    names = [name for name, _ in walk(cli)]
    assert len(names) > 20
    assert [name for name in names if f"## {name}\n" not in reference] == []


def test_every_option_has_a_help() -> None:
    from keybroker.cli import cli

    bare = [
        f"{name} {option.name}"
        for name, command in walk(cli)
        for option in command.params
        if option.param_type_name == "option" and not getattr(option, "help", None)
    ]
    assert bare == []


def records_written() -> Mapping[str, set[str]]:
    """Record types that the code writes, each with the names of its fields."""
    found: dict[str, set[str]] = {}
    for path in (p for room in HOUSE for p in (ROOT / room).rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
                name = getattr(call.func, "id", getattr(call.func, "attr", ""))
                if name not in ("Draft", "_record") or not call.args:
                    continue
                kind = call.args[0]
                if isinstance(kind, ast.Constant):
                    fields = fields_of(call.args[1], function) if len(call.args) > 1 else set()
                    found.setdefault(str(kind.value), set()).update(fields)
    return found


def fields_of(data: ast.expr, function: ast.AST) -> set[str]:
    """Keys of a dict, written out or put together in a variable of the function."""
    if isinstance(data, ast.Dict):
        return {str(key.value) for key in data.keys if isinstance(key, ast.Constant)}
    assert isinstance(data, ast.Name), ast.dump(data)
    keys: set[str] = set()
    for node in ast.walk(function):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            if isinstance(target, ast.Name) and target.id == data.id:
                assert isinstance(node.value, ast.Dict)  # type: ignore[attr-defined]
                keys |= fields_of(node.value, function)  # type: ignore[attr-defined]
            elif isinstance(target, ast.Subscript) and ast.unparse(target.value) == data.id:
                keys.add(ast.literal_eval(target.slice))
    assert keys
    return keys


def test_audit_guide_has_every_record_type_with_its_fields() -> None:
    """The fields stand before the first colon or semicolon of their cell."""
    table = rows("audit.md", "### Types")
    told = {
        kind: set(_CODE.findall(re.split(r"[:;]", cell[0] if cell else "")[0]))
        for kind, cell in table.items()
    }
    assert told == dict(records_written())


def test_audit_guide_has_every_field_of_a_record() -> None:
    from audit.reading import COLUMNS

    assert list(rows("audit.md", "## A record")) [: len(COLUMNS.split(", "))] == [
        "seq", "time", "type", "call", "agent", "data", "prev", "hash",
    ]  # fmt: skip
    assert set(COLUMNS.split(", ")) <= set(rows("audit.md", "## A record"))


def test_audit_guide_has_every_kind_of_fault() -> None:
    source = "".join((ROOT / "audit" / f).read_text() for f in ("meaning.py", "verify.py"))
    kinds = set(re.findall(r'(?:_Odd\(|fault\([^"()]*?,\s*)"([a-z]+)"', source))
    section = text_of(GUIDES / "audit.md").partition("| fault |")[2]
    table = section.partition("\n\n")[0]
    assert len(kinds) > 10
    assert kinds <= set(_CODE.findall(table))


# Dependencies, variables, changes


def test_dependencies_are_all_explained_and_no_others() -> None:
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[\[<>=~ ]", line)[0] for line in requirements}

    assert set(rows("dependencies.md", "## To run")) == names(project["project"]["dependencies"])
    dev = names(project["dependency-groups"]["dev"])
    assert set(rows("dependencies.md", "## To develop")) == dev


def test_environment_variables_are_all_named() -> None:
    source = "".join(p.read_text() for p in (ROOT / "keybroker").rglob("*.py"))
    used = set(re.findall(r'"(KEYBROKER_[A-Z]+)"', source))
    assert used == {n for n in rows("deployment.md", "## Environment") if n.startswith("KEYBROKER")}


def test_changelog_has_the_version() -> None:
    version = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]["version"]
    changes = text_of(ROOT / "CHANGELOG.md")
    assert changes.index("## [Unreleased]") < changes.index(f"## [{version}]")
