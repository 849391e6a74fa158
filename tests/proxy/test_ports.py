"""The middle's own types fit the engine's ports, and the fakes fit them too."""

from __future__ import annotations

import inspect

import pytest

from proxy import ports
from tests.proxy import harness


@pytest.mark.parametrize(
    ("port", "fake"),
    [
        (ports.Answer, harness.FakeAnswer(200)),
        (ports.Passage, harness.FakePassage(None)),  # type: ignore[arg-type]
        (ports.Tunnel, harness.FakeTunnel()),
    ],
)
def test_shapes_are_told_apart(port: type, fake: object) -> None:
    assert isinstance(fake, port)
    others = {ports.Answer, ports.Passage, ports.Tunnel} - {port}
    assert not any(isinstance(fake, other) for other in others)
    assert not isinstance(None, port)


def test_the_real_answer_and_passage_fit() -> None:
    from broker.answers import Answer
    from broker.passage import Passage

    assert isinstance(Answer(200, (), b""), ports.Answer)
    for name in ("head", "feed", "finish", "completed", "failed", "refused"):
        assert hasattr(Passage, name)
    wanted = inspect.signature(ports.Passage.failed).parameters
    assert list(inspect.signature(Passage.failed).parameters) == list(wanted)
