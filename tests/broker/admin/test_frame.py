"""What every page shares: escaping by default, no silent gaps, times by the server."""

import jinja2
import pytest
from markupsafe import Markup

from broker.admin.frame import environment


def render(template: str, **values: object) -> str:
    return environment().from_string(template).render(**values)


def test_everything_is_escaped_by_default() -> None:
    assert render("{{ x }}", x="<b>") == "&lt;b&gt;"
    for name in ("inert", "inert_lines", "clipped"):
        assert "<b>" not in render("{{ x | " + name + " }}", x="<b>" * 500)
        assert "<b>" not in render("{{ x | " + name + " }}", x=Markup("<b>")), (
            "not even marked safe"
        )


def test_a_missing_value_is_an_error_and_not_a_gap() -> None:
    with pytest.raises(jinja2.UndefinedError):
        render("{{ nothing }}")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (9, "0:09"), (90, "1:30"), (3700, "1:01:40")]
)
def test_countdowns(seconds: int, shown: str) -> None:
    assert render("{{ x | clock }}", x=seconds) == shown


def test_times_are_shown_to_the_second() -> None:
    assert render("{{ x | when }}", x="2026-11-22T09:58:07.120000Z") == "2026-11-22 09:58:07"
    assert render("{{ x | when }}", x=None) == ""


def test_ids_in_links_cannot_leave_their_segment() -> None:
    assert render("/history/{{ x | segment }}", x="../a?b#c") == "/history/..%2Fa%3Fb%23c"
