"""`keybroker policy import openapi`: whole files or none, reports, one line for what is wrong."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import yaml

from keybroker.cli import imports
from tests.keybroker.cli.conftest import Run

DESCRIPTION = """
openapi: 3.1.0
info: {title: "Pet \\e[31mStore", version: 1}
servers: [{url: https://pets.example/v1}]
paths:
  /pets:
    get: {operationId: listPets}
    post: {operationId: createPet}
  /pets/{id}:
    delete: {operationId: deletePet}
"""


@pytest.fixture
def description(tmp_path: Path) -> Path:
    file = tmp_path / "Pet Store.yaml"
    file.write_text(DESCRIPTION)
    return file


def test_a_pack_is_written(run: Run, description: Path, tmp_path: Path) -> None:
    output = tmp_path / "pets.yaml"
    done = run("policy", "import", "openapi", description, "--host", "p.example", "-o", output)
    assert done.status == 0, done.err
    assert done.out.startswith(
        f"wrote {output}: 3 rules for 3 operations of Pet [31mStore (1 low, 1 medium, 1 high)\n"
    )
    assert "look at servers: None of its servers is at p.example" in done.out
    pack = yaml.safe_load(output.read_text())
    assert (pack["pack"], pack["hosts"]) == ("pets", ["p.example"])
    assert [rule["id"] for rule in pack["rules"]] == ["list-pets", "create-pet", "delete-pet"]
    assert stat.S_IMODE(output.stat().st_mode) == 0o644


@pytest.mark.parametrize("output", [(), ("-o", "-")])
def test_without_an_output_it_goes_to_stdout(
    run: Run, description: Path, output: tuple[str, ...]
) -> None:
    done = run("policy", "import", "openapi", description, *output)
    pack = yaml.safe_load(done.out)
    assert (pack["pack"], pack["hosts"]) == ("pet-store", ["pets.example"])


def test_stdin_and_a_name(run: Run) -> None:
    done = run("policy", "import", "openapi", "-", "--name", "mine", stdin=DESCRIPTION)
    assert yaml.safe_load(done.out)["pack"] == "mine"
    done = run("policy", "import", "openapi", "-", stdin=DESCRIPTION)
    assert yaml.safe_load(done.out)["pack"] == "api"


def test_a_report_for_machines(run: Run, description: Path, tmp_path: Path) -> None:
    output = tmp_path / "pets.yaml"
    told = run("policy", "import", "openapi", description, "--json").json
    assert told["output"] is None
    assert not output.exists()
    told = run("policy", "import", "openapi", description, "--json", "-o", output).json
    assert told["output"] == str(output)
    assert told["classes"] == {"low": 1, "medium": 1, "high": 1}
    assert (told["pack"], told["operations"], told["rules"]) == ("pets", 3, 3)
    assert told["review"] == []
    assert told["list"][2] == {
        "rule": "delete-pet",
        "class": "high",
        "operations": [{"method": "DELETE", "path": "/v1/pets/{id}"}],
        "reasons": ["DELETE"],
    }
    assert output.exists()


def test_nothing_is_overwritten_unasked(run: Run, description: Path, tmp_path: Path) -> None:
    output = tmp_path / "pets.yaml"
    output.write_text("mine")
    done = run("policy", "import", "openapi", description, "-o", output)
    assert done.status == 1
    assert f"{output} is there already; --force overwrites it" in done.err
    assert output.read_text() == "mine"
    assert run("policy", "import", "openapi", description, "-o", output, "--force").status == 0
    assert output.read_text().startswith("# Made by")


def test_what_is_wrong_leaves_nothing_behind(run: Run, description: Path, tmp_path: Path) -> None:
    output = tmp_path / "pets.yaml"
    description.write_text(DESCRIPTION.replace("post:", "get:"))
    done = run("policy", "import", "openapi", description, "-o", output)
    assert done.status == 1
    assert done.err.startswith(
        "keybroker: Pet Store.yaml:8: error: the key 'get' occurs twice in the mapping of line 7"
    )
    assert list(tmp_path.glob("*pets*")) == []
    description.write_text(DESCRIPTION)
    done = run("policy", "import", "openapi", description, "-o", tmp_path / "none" / "pets.yaml")
    assert (done.status, "cannot be written (No such file" in done.err) == (1, True)


def test_what_cannot_be_read(run: Run, tmp_path: Path) -> None:
    done = run("policy", "import", "openapi", tmp_path / "none.yaml")
    assert (done.status, "there is no file" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "https://x"], "Invalid value for '--host'"),
        (["--host", "*"], "Invalid value for '--host'"),
        (["--name", "Not A Name"], "write small letters"),
        (["--name", ""], "write small letters"),
    ],
)
def test_odd_options_are_refused(
    run: Run, description: Path, options: list[str], said: str
) -> None:
    done = run("policy", "import", "openapi", description, *options)
    assert (done.status, said in done.err) == (2, True), done.err


def test_progress_is_for_terminals_and_large_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(imports.time, "monotonic", lambda: now[0])
    progress = imports._Progress("a.yaml")
    now[0] = 5.0
    progress(0.5)
    progress.end()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    now[0] = 0.5
    progress(0.1)
    now[0] = 5.0
    progress(0.5)
    progress(0.6)
    progress.end()
    assert capsys.readouterr().err == "\rreading a.yaml: 50% \r\033[K"


def test_the_written_pack_is_read_by_json_and_yaml_alike(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps(yaml.safe_load(DESCRIPTION)))
    ours = run("policy", "import", "openapi", file, "--name", "p").out
    theirs = run("policy", "import", "openapi", "-", "--name", "p", stdin=DESCRIPTION).out
    assert ours.split("\npack:")[1] == theirs.split("\npack:")[1]
