"""The fuzzer itself: a short run of each target, and a failure that says how to make it again."""

from __future__ import annotations

import random

import pytest

from tests.fuzz import check_path, run, targets


@pytest.mark.parametrize(("target", "times"), [("canonical", 1_000), ("decide", 100)])
def test_a_short_run_finds_nothing(target: str, times: int) -> None:
    count = run(targets()[target](), seed=0, times=times, seconds=60)
    assert count.outcomes.total() == times
    assert len(count.outcomes) > 1
    assert count.slowest > 0


def test_a_failure_names_its_seed(capsys: pytest.CaptureFixture[str]) -> None:
    def check(chance: random.Random) -> str:
        assert chance.random() < 0.9
        return "good"

    with pytest.raises(AssertionError):
        run(check, seed=0, times=1_000, seconds=60)
    seed = int(capsys.readouterr().err.split()[3])
    with pytest.raises(AssertionError):
        run(check, seed=seed, times=1, seconds=60)


@pytest.mark.parametrize("path", ["/a%2Fb", "/a/%2E%2E/b", "/a%252Fb", "/a%EF%BC%8Fb", "/a%00b"])
def test_the_check_of_paths_bites(path: str) -> None:
    with pytest.raises(AssertionError):
        check_path(path)
