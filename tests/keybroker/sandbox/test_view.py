"""What a sandboxed command sees: the deepest place decides, and no wish uncovers the workspace."""

from __future__ import annotations

from pathlib import Path

import pytest

from keybroker.errors import Unusable
from keybroker.sandbox.mounts import Mount
from keybroker.sandbox.view import Surroundings, View, Wishes, make_view


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a project, a workspace, keys, and a program that lies in the project."""
    for name in ("project/src", "project/tools/.venv", "workspace/state", ".ssh", "notes"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / ".netrc").write_text("machine x password y")
    return tmp_path


def around(home: Path, **more: object) -> Surroundings:
    facts: dict[str, object] = {
        "home": str(home),
        "cwd": str(home / "project"),
        "guarded": (str(home / "workspace"),),
        "program": (str(home / "project/tools/.venv"),),
        "mounts": (Mount("8:1", "/", "/"),),
        "sockets": frozenset(),
    }
    return Surroundings(**(facts | more))  # type: ignore[arg-type]


def seen(view: View, path: Path) -> str:
    return view.kind_of(str(path))


def test_the_current_directory_can_be_changed_and_the_rest_of_the_home_be_read(home: Path) -> None:
    view = make_view(Wishes(hide=(home / "notes",), readable=(home,)), around(home))
    assert seen(view, home / "project/src") == "writable"
    assert seen(view, home / "other") == "readable"
    assert seen(view, home / "notes/x") == "hidden"
    assert seen(view, Path("/etc/passwd")) == "readable"
    assert view.cwd == str(home / "project")


def test_keys_and_the_workspace_are_hidden(home: Path) -> None:
    view = make_view(Wishes(readable=(home,)), around(home))
    for name in (".ssh/id_ed25519", ".netrc", "workspace/policy.yaml", "workspace/state/x"):
        assert seen(view, home / name) == "hidden"
    assert {str(home / "workspace"), str(home / ".ssh"), str(home / ".netrc")} <= set(view.hidden)


def test_what_is_hidden_can_be_asked_for_but_not_the_workspace(home: Path) -> None:
    view = make_view(Wishes(readable=(home, home / ".netrc")), around(home))
    assert seen(view, home / ".netrc") == "readable"
    for path in ("workspace", "workspace/state"):
        with pytest.raises(Unusable, match="stays hidden"):
            make_view(Wishes(readable=(home / path,)), around(home))


def test_a_hidden_home_shows_what_is_named(home: Path) -> None:
    show = (home.parent, home / "notes")  # pytest's folders lie in /tmp, which is empty else
    wishes = Wishes(hide=(home,), readable=show, writable=(home / "project",))
    view = make_view(wishes, around(home))
    assert seen(view, home / "anything") == "hidden"
    assert seen(view, home / "notes/x") == "readable"
    assert seen(view, home / "project/x") == "writable"
    paths = [place.path for place in view.places]
    assert paths.index(str(home)) < paths.index(str(home / "notes"))  # outer ones first


@pytest.mark.parametrize("folder", ["workspace", "workspace/state", ".", ".."])
def test_nothing_may_be_written_at_in_or_above_the_workspace_or_the_home(
    home: Path, folder: str
) -> None:
    for wishes, cwd in ((Wishes(), home / folder), (Wishes(writable=(home / folder,)), home)):
        with pytest.raises(Unusable, match=r"workspace|home"):
            make_view(wishes, around(home, cwd=str(cwd)))


@pytest.mark.parametrize("folder", ["/", "/etc", "/usr/bin", "/proc", "/dev", "/sys", "/tmp"])
def test_the_system_is_not_written_to(home: Path, folder: str) -> None:
    with pytest.raises(Unusable, match=r"home|system|sandbox's own|every user's"):
        make_view(Wishes(writable=(Path(folder),)), around(home))


def test_the_programs_own_files_in_a_writable_folder_are_fastened(home: Path) -> None:
    """Else the agent could move tools/ away and put its own Keybroker there."""
    view = make_view(Wishes(), around(home))
    assert seen(view, home / "project/tools/.venv/bin/keybroker") == "readable"
    by_path = {place.path: place.kind for place in view.places}
    assert by_path[str(home / "project/tools")] == "writable"  # a mount of its own
    with pytest.raises(Unusable, match="Keybroker"):
        make_view(Wishes(writable=(home / "project/tools/.venv",)), around(home))


def test_links_are_followed(home: Path) -> None:
    (home / "elsewhere").mkdir()
    (home / ".aws").symlink_to(home / "elsewhere")
    (home / "link").symlink_to(home / "workspace")
    view = make_view(Wishes(readable=(home,)), around(home))
    assert seen(view, home / "elsewhere") == "hidden"
    with pytest.raises(Unusable, match="workspace"):
        make_view(Wishes(writable=(home / "link",)), around(home))


def test_every_name_of_the_workspace_is_hidden(home: Path) -> None:
    """The home is mounted a second time elsewhere."""
    again = home / "again"
    (again / "workspace").mkdir(parents=True)
    mounts = (Mount("8:1", "/", "/"), Mount("8:1", str(home), str(again)))
    view = make_view(Wishes(readable=(home,)), around(home, mounts=mounts))
    assert seen(view, again / "workspace/state") == "hidden"
    with pytest.raises(Unusable, match="workspace"):
        make_view(Wishes(writable=(again,)), around(home, mounts=mounts))


def test_sockets_are_hidden_where_they_could_be_reached(home: Path) -> None:
    project, shared = str(home / "project/db.sock"), "/run/docker.sock"
    for path in (project,):
        Path(path).touch()
    view = make_view(Wishes(), around(home, sockets=frozenset({project, shared})))
    assert view.kind_of(project) == "hidden"
    assert shared not in [place.path for place in view.places]  # /run is empty anyway


def test_the_runs_own_folder_is_shown(home: Path) -> None:
    run = home / "run"
    run.mkdir()
    view = make_view(Wishes(hide=(home,), writable=()), around(home, shown=(str(run),)))
    assert seen(view, run / "ca.pem") == "readable"


def test_a_current_directory_out_of_sight_is_said(home: Path) -> None:
    (home / ".ssh/keys").mkdir()
    wishes = Wishes(writable=(), hide=(home / "notes",))
    with pytest.raises(Unusable, match="hidden in the sandbox"):
        make_view(wishes, around(home, cwd=str(home / "workspace")))
    with pytest.raises(Unusable, match="nothing there"):
        make_view(Wishes(readable=(home / "missing",)), around(home))
    with pytest.raises(Unusable, match="no such folder"):
        make_view(Wishes(writable=(home / ".netrc",)), around(home))
