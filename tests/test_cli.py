"""The command `accelkd`, as a person types it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from accelkd.cli import COMMANDS, main
from accelkd.cohort.participants import segmented_participants
from accelkd.cohort.split import extend_split
from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.operations.checks import CHECKS
from accelkd.recordings.batches import read_manifest
from accelkd.recordings.simulator import simulate_batch
from accelkd.registry.history import promoted_models
from accelkd.segments.segment import segment_batch
from accelkd.training.checkpoint import load_encoder
from accelkd.warehouse.inspect import loaded_batches
from accelkd.warehouse.load import load_batch
from tests.support.recordings import Person, land_people
from tests.support.tables import signals, write_csv


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ACCELKD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_simulated_batch_lands_and_is_valid(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["simulate", "--participants", "2", "--segments", "1", "--seed", "5", "--batch", "b1", "--processes", "1"])
        == 0
    )
    assert "2 participants" in capsys.readouterr().out
    assert main(["validate", "b1"]) == 0
    assert capsys.readouterr().out == "b1: valid\n"
    (home / "landing" / "b1" / "participants.parquet").unlink()
    assert main(["validate", "b1"]) == 1
    assert "participants.parquet" in capsys.readouterr().out


def test_a_large_delivery_is_cut_into_batches(home: Path) -> None:
    command = "simulate --participants 5 --segments 1 --seed 5 --batch big --processes 1 --max-participants 2"
    assert main(command.split()) == 0
    manifests = {name: read_manifest(home / "landing" / name) for name in ("big-001", "big-002", "big-003")}
    assert [manifest.rows("participants") for manifest in manifests.values()] == [2, 2, 1]
    assert main(command.split()) == 0  # the same again changes nothing
    assert {name: read_manifest(home / "landing" / name) for name in manifests} == manifests


def test_rollback_without_anything_to_go_back_to_says_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--home", str(home), "rollback"]) == 2
    assert "nothing to go back to" in capsys.readouterr().err


def test_ingest_ends_well_unless_nothing_could_be_read(
    home: Path, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "sessions", tmp_path / "unreadable"
    (good / "S16").mkdir(parents=True)
    for file in (shared / "data" / "stress-predict-e4" / "S16").iterdir():
        (good / "S16" / file.name).write_bytes(file.read_bytes())
    (good / "S99").mkdir()
    (good / "S99" / "BVP.csv").write_text("not a recording\n", encoding="utf-8")
    (bad / "S99").mkdir(parents=True)
    (bad / "S99" / "BVP.csv").write_text("not a recording\n", encoding="utf-8")
    assert main(["ingest", "e4", str(good), "--batch", "part"]) == 0
    assert (home / "landing" / "part" / "manifest.json").exists()
    assert "rejected" in capsys.readouterr().out
    assert main(["ingest", "e4", str(bad), "--batch", "none"]) == 1
    assert not (home / "landing" / "none").exists()


def test_a_table_is_described_ingested_and_its_participants_too(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "study"
    for seed, name in enumerate(("S01", "S02")):
        write_csv(folder / f"{name}.csv", signals(90, seed))
    (folder / "participants.tsv").write_text("participant_id\tage\tsex\theight\nsub-S01\t34\tF\t170\nS03\t50\tM\t1.8\n")
    assert main(["ingest", "--describe", str(folder / "S01.csv")]) == 0
    (folder / "mapping.toml").write_text(capsys.readouterr().out)
    assert not home.exists()
    words = ["ingest", "table", str(folder), "--batch", "b1", "--mapping", str(folder / "mapping.toml")]
    assert main([*words, "--participants", str(folder / "participants.tsv")]) == 0
    printed = capsys.readouterr().out
    for line in (
        "read          2, from 2 participants, 3.0 minutes",
        "rejected      0",
        "companions    2",
        "note: row 2 of the table of participants: height read as cm by its size",
        "note: 1 rows of the table of participants without a recording: S03",
        "note: 1 participants without a row in the table of participants: S02",
    ):
        assert f"{line}\n" in printed
    people = pq.read_table(home / "landing/b1/participants.parquet").to_pylist()
    assert [(row["participant_id"], row["age_years"], row["height_m"]) for row in people] == [
        ("table-S01", 34, 1.7),
        ("table-S02", None, None),
    ]
    assert main(["validate", "b1"]) == 0


def test_participants_are_named_where_the_command_says(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, (site, name) in enumerate((("north", "P1"), ("south", "P1"), ("south", "P2"))):
        write_csv(tmp_path / f"in/{site}/{name}.csv", {"who": [f"{site}-{name}"] * 4500, **signals(90, seed)})
    mapping = tmp_path / "m.toml"
    mapping.write_text('[time]\ncolumn = "timestamp"\nunit = "ms"\n[ppg]\ncolumns = "green"\n')
    words = ["ingest", "table", str(tmp_path / "in"), "--mapping", str(mapping)]
    assert main([*words, "--batch", "b0"]) == 1
    assert "it may be 'south' or 'P1'; say where it stands: --participant-from" in capsys.readouterr().out
    assert main([*words, "--batch", "b1", "--participant-from", "path:2"]) == 0
    mapping.write_text(mapping.read_text() + '[participant]\ncolumn = "who"\n')
    assert main([*words, "--batch", "b2", "--replaces", "b1"]) == 0
    named = [
        pq.read_table(home / "landing" / batch / "participants.parquet")["participant_id"].to_pylist()
        for batch in ("b1", "b2")
    ]
    assert named == [["table-P1", "table-P2"], ["table-north-P1", "table-south-P1", "table-south-P2"]]


def test_train_and_promote_are_one_chain(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = Home(home)
    simulate_batch(opened.landing, "b1", participants=4, segments=5, seed=1, profile="easy", processes=1)
    segment_batch(opened, "b1")
    extend_split(opened.split, segmented_participants(opened, ["b1"]), seed=0, test_fraction=0.2)
    assert main(["train", "--preset", "smoke", "--device", "cpu"]) == 0
    teacher, student = (Path(line.split(": ")[1]) for line in capsys.readouterr().out.splitlines())
    assert load_encoder(teacher)[1].encoder == "ppg_teacher"
    assert load_encoder(student)[1].teacher == teacher.name
    # In a home whose warehouse holds nothing yet
    assert main(["promote"]) == 0
    assert f"promoted: {teacher.name}, {student.name}" in capsys.readouterr().out
    assert dict(promoted_models(opened)) == {"ppg_teacher": teacher.name, "accel_student": student.name}
    # And where encoders are promoted already: what was trained last is evaluated
    simulate_batch(
        opened.landing, "b2", participants=4, segments=5, seed=1, profile="easy", processes=1, first_participant=4
    )
    segment_batch(opened, "b2")
    load_batch(opened, "b2")  # where there is a warehouse, what it holds is trained on
    extend_split(opened.split, segmented_participants(opened, ["b1", "b2"]), seed=0, test_fraction=0.2)
    assert main(["train", "--preset", "smoke", "--device", "cpu"]) == 0
    second = [line.split("/")[-1] for line in capsys.readouterr().out.splitlines()]
    assert teacher.name not in second
    main(["promote", "--force", "newer"])
    assert f"promoted: {', '.join(second)}: forced: newer" in capsys.readouterr().out
    assert loaded_batches(opened) == {"b1", "b2"}


def test_configure_changes_what_is_asked_and_keeps_the_rest(home: Path) -> None:
    assert main(["configure", "--preset", "demo"]) == 0
    assert main(["configure", "--motion-gate", "loose"]) == 0
    assert Settings.load(Home(home)) == Settings(preset="demo", motion_gate="loose")


def test_help_groups_the_commands_by_who_uses_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    titles = [next(number for number, line in enumerate(lines) if f"─ {title} ─" in line) for title in COMMANDS]
    for start, end, commands in zip(titles, [*titles[1:], len(lines)], COMMANDS.values(), strict=True):
        named = [line.split()[1] for line in lines[start + 1 : end] if line.startswith("│ ") and line[2] != " "]
        assert named == [command.__name__.replace("_", "-") for command in commands]


@pytest.mark.parametrize("command", [command for commands in COMMANDS.values() for command in commands])
def test_every_command_explains_itself(command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command.__name__.replace("_", "-"), "--help"]) == 0
    assert (command.__doc__ or "missing").splitlines()[0] in capsys.readouterr().out


REQUIRED = {"participants": "1", "segments": "1", "seed": "1", "batch": "b"}


def simulate(**options: str) -> str:
    """`accelkd simulate` with what it requires, and other options."""
    given = {name.replace("_", "-"): value for name, value in {**REQUIRED, **options}.items()}
    return f"simulate {' '.join(f'--{name} {value}' for name, value in given.items())}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "a command is missing"),
        ("frobnicate", 'Unknown command "frobnicate"'),
        ("simulate", '"simulate" parameter --participants requires'),
        (simulate(participants="0"), '"0" for --participants. Must be >= 1'),
        (simulate(participants="many"), "--participants: 'many' is not a whole number"),
        (simulate(segments="0"), '"0" for --segments. Must be >= 1'),
        (simulate(segments="1.5"), "--segments: '1.5' is not a whole number"),
        (simulate(seed="-1"), '"-1" for --seed. Must be >= 0'),
        (simulate(processes="0"), '"0" for --processes. Must be >= 1'),
        (simulate(max_participants="0"), '"0" for --max-participants. Must be >= 1'),
        (simulate(first_participant="-1"), '"-1" for --first-participant. Must be >= 0'),
        (simulate(rate_hz="65"), '"65" for --rate-hz. Choose from: 64, 256'),
        (simulate(profile="harder"), "unknown profile 'harder'; known: easy, realistic, hard"),
        (simulate(sead="2"), "Unknown option: --sead. Did you mean --seed?"),
        ("ingest e4 --batch b", "ingest needs <folder>"),
        ("ingest", "ingest needs <device> and <folder> and --batch"),
        ("ingest table . --batch b", "a table needs --mapping"),
        ("ingest table . --batch b --mapping absent.toml", "absent.toml"),
        ("ingest e4 . --batch b --mapping absent.toml --participants absent.csv", "absent.toml"),
        ("ingest e4 . --batch b --participants absent.csv", "absent.csv"),
        ("ingest e4 . --batch b --participant-from nose", "participant_from is 'nose', expected one of path"),
        ("ingest --describe absent.csv", "absent.csv"),
        ("validate", '"validate" parameter BATCH requires'),
        ("validate a b", "Unused Tokens: ['b']"),
        ("configure --preset huge", '"huge" for --preset. Choose from: "paper", "demo", "scratch", "night", "smoke"'),
        ("configure --motion-gate open", '"open" for --motion-gate. Choose from: "strict", "loose", "off"'),
        ("configure --hop-s 0", "hop_s = 0.0: must be greater than or equal to 0.1"),
        ("configure --hop-s nan", "hop_s = nan: must be a finite number"),
        ("configure --test-fraction 1.5", "test_fraction = 1.5: must be less than 1"),
        ("configure --split-seed -1", "split_seed = -1: must be greater than or equal to 0"),
        ("configure --split-seed 1.5", "--split-seed: '1.5' is not a whole number"),
        ("configure --retrain-after-participants -1", "retrain_after_participants = -1: must be greater"),
        ("train --device tpu", '"tpu" for --device. Must be auto, cpu or cuda'),
        ("reproduce", "either --preset or --merge"),
        ("reproduce --preset smoke --merge a b --out c", "either --preset or --merge"),
        ("reproduce --merge a b", "--merge needs --out"),
        ("reproduce --preset smoke --workers 0", '"0" for --workers. Must be >= 1'),
        ("reproduce --preset smoke --budget-min 0", '"0.0" for --budget-min. Must be > 0'),
        ("reproduce --preset smoke --only", "--only requires at least 1"),
        ("reproduce --preset smoke --seeds 0 1.5", "--seeds"),
        ("--home", "--home requires an argument"),
    ],
)
def test_bad_input_ends_with_one_line_that_names_it_and_nothing_stored(
    home: Path, words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("accelkd: ")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not home.exists()


def test_a_value_with_control_characters_is_told_in_one_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*simulate().split(), "--rate-hz", "6\n4\x1b[31m"]) == 2
    assert '"6\\n4\\x1b[31m" for --rate-hz' in capsys.readouterr().err
    assert not home.exists()


def test_the_file_of_a_wrong_setting_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home.mkdir()
    (home / "settings.json").write_text('{"hop_s": 0}', encoding="utf-8")
    assert main(["configure", "--preset", "demo"]) == 2
    message = f"accelkd: {home / 'settings.json'}: hop_s = 0: must be greater than or equal to 0.1\n"
    assert capsys.readouterr().err == message
    assert (home / "settings.json").read_text(encoding="utf-8") == '{"hop_s": 0}'


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("words", [["--help"], ["simulate", "--help"], ["configure", "--motion-gate", "loose"]])
def test_the_command_line_starts_without_what_takes_long_to_load(words: list[str]) -> None:
    program = (
        "import sys; from accelkd.cli import main; assert main(sys.argv[1:]) == 0; "
        "slow = {'dagster', 'duckdb', 'numpy', 'pyarrow', 'scipy', 'torch'} & {*sys.modules}; assert not slow, slow"
    )
    command = [sys.executable, "-c", program, *words]
    subprocess.run(command, check=True, timeout=60, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("batch", ["../escape", "a b", "x'; DROP TABLE segments; --", ""])
def test_bad_identifiers_end_with_one_clear_line(home: Path, batch: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--participants", "1", "--segments", "1", "--seed", "1", "--batch", batch]) == 2
    assert "is not an identifier" in capsys.readouterr().err
    assert not (home / "landing").exists()


def test_summary_without_a_warehouse_says_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary"]) == 2
    assert str(home) in capsys.readouterr().err


def test_check_prints_what_was_measured_and_what_cannot_be_yet(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = Home(home)
    simulate_batch(opened.landing, "b1", participants=4, segments=5, seed=1, profile="easy", processes=1)
    assert main(["check", "b1"]) == 2
    assert "b1 was not segmented" in capsys.readouterr().err
    segment_batch(opened, "b1")
    assert main(["check", "b1"]) == 0
    lines = {line[9:].split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["segments: windows_add_up"].startswith("passed")
    assert "seen = 20, segments = " in lines["segments: windows_add_up"]
    assert lines["segment_tables: tables_hold_the_batch"].startswith("not yet")
    assert lines["accel_student_embeddings: every_segment_is_embedded"].startswith("not yet")
    expected = {f"{check.asset}: {check.name}" for check in CHECKS if check.per_batch}
    assert lines.keys() == expected  # as in the UI
    quarantine = pq.read_table(opened.quarantine("b1"))
    more = {**quarantine.schema.metadata, b"seen": b"99"}
    pq.write_table(quarantine.replace_schema_metadata(more), opened.quarantine("b1"))
    assert main(["check", "b1"]) == 1
    assert "FAILED   segments: windows_add_up" in capsys.readouterr().out


def test_check_sensor_prints_what_was_measured(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = Home(home)
    simulate_batch(opened.landing, "b1", participants=4, segments=3, seed=1, profile="easy", processes=1)
    assert main(["check-sensor", "b1"]) == 2
    assert "b1 was not segmented" in capsys.readouterr().err
    segment_batch(opened, "b1")
    assert main(["check-sensor", "b1"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("sim-wrist-64: carries: ")
    assert [line.strip().split("  ")[0] for line in lines] == [
        *("still minutes", "tested with beats", "locked at p < 0.01", "with other beats", "locked wave"),
        "autocorrelation peak",
    ]
    assert not opened.staging.exists()  # it needs no warehouse
    land_people(opened, "noise", [Person(f"p{number}", duration_s=480.0) for number in range(3)])
    segment_batch(opened, "noise")
    assert main(["check-sensor", "noise"]) == 1
    assert capsys.readouterr().out.startswith("sim-wrist-64: carries nothing: ")


def test_repair_names_what_it_has_repaired(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = Home(home)
    simulate_batch(opened.landing, "b1", participants=1, segments=2, seed=1, profile="easy", processes=1)
    segment_batch(opened, "b1")
    before = opened.segments("b1").read_bytes()
    opened.segments("b1").write_bytes(before[:-1])
    assert main(["repair"]) == 0
    assert "re-segmented batch b1: " in capsys.readouterr().out
    assert opened.segments("b1").read_bytes() == before
    assert main(["repair"]) == 0
    assert capsys.readouterr().out == "0 batches repaired\n"
