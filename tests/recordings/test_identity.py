"""Who the participant is: what a path says, and what it does not."""

from __future__ import annotations

from pathlib import PurePath

import pytest

from accelkd.recordings.identity import by_path, level_of, looks_like_session


def names(*paths: str, level: int | None = None) -> list[str | None]:
    return [name for name, _ in by_path([PurePath(path) for path in paths], "delivery", level)]


@pytest.mark.parametrize(
    "name",
    [
        "1700000001_A011BC",
        "session_2",
        "Recording_001",
        "2024-03-05",
        "20240305_221000",
        "P01_20240305",
        "left",
        "walk",
    ],
)
def test_names_that_say_when_or_what(name: str) -> None:
    assert looks_like_session(name)


@pytest.mark.parametrize("name", ["P01", "S1", "sub-003", "001", "Subject_0063", "anna", "wrister", "dayan"])
def test_names_that_may_be_somebody(name: str) -> None:
    assert not looks_like_session(name)


def test_sessions_lie_in_the_folder_of_their_participant() -> None:
    assert names("P01/1700000000_A", "P01/1700086400_A", "P02/1700000000_B") == ["P01", "P01", "P02"]
    assert names("raw/P01/night1", "raw/P02/night1") == ["P01", "P02"]
    assert names("wave2/P01", "wave2/P02") == ["P01", "P02"]
    assert names("P01/left", "P01/right") == ["P01", "P01"]
    assert names("P01", "P02") == ["P01", "P02"]
    assert names("siteA/P01", "siteB/P02") == ["P01", "P02"]
    assert names("MSCardio/Subject_0063/Recording_001", "MSCardio/Subject_0064/Recording_002") == [
        "Subject_0063",
        "Subject_0064",
    ]


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (["1700000000_A", "1700086400_A"], "looks like a session"),
        (["all/1700000000_A", "all/1700086400_A"], "looks like a session"),
        (["leeds/P01", "york/P02"], "it may be"),
        (["leeds/P01/day1", "york/P01/day1"], "it may be"),
        (["walk"], "looks like a session"),
    ],
)
def test_what_is_not_clear_is_refused_with_advice(paths: list[str], reason: str) -> None:
    for name, why in by_path([PurePath(path) for path in paths], "delivery"):
        assert name is None
        assert reason in why
        assert "--participant-from" in why
        assert "a folder of their own" in why


def test_a_name_below_several_folders_is_no_participant() -> None:
    """Two people of one name at two places, or one: nobody can tell."""
    refused = by_path([PurePath("day1/P01"), PurePath("day2/P01"), PurePath("day2/P02")], "delivery")
    assert [name for name, _ in refused] == [None, None, "P02"]
    assert "stands below several folders" in refused[0][1]


def test_the_delivered_folder_itself_is_a_session() -> None:
    assert by_path([PurePath()], "P07") == [("P07", "")]
    assert by_path([PurePath()], "session1")[0][0] is None


def test_the_level_decides_where_it_is_given() -> None:
    assert names("siteA/P01/day1", "siteB/P01/day1", level=1) == ["P01", "P01"]
    assert names("siteA/P01/day1", "siteB", level=1) == ["P01", None]
    assert (level_of("path"), level_of("path:2"), level_of("file"), level_of(None)) == (0, 1, None, None)
    with pytest.raises(ValueError, match="expected one of path, path:N, column, file"):
        level_of("folder")
