"""The command `accelkd`: what is not Dagster's to do."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import get_args

from accelkd.home.identifiers import check_identifier
from accelkd.home.layout import Home
from accelkd.home.locks import shared_lock
from accelkd.home.settings import MotionGate, PresetName, Settings
from accelkd.recordings.batches import MAX_PARTICIPANTS, batch_ids

_CUT = "of one batch; a larger delivery is cut into several, named <ID>-001 and so on"

_DEVICE_LOST = 75  # exit status: the same command in a new process goes on (EX_TEMPFAIL of sysexits.h)


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit status. Bad input ends with one clear line on stderr and status 2."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    arguments.typed = sys.argv[1:] if argv is None else argv
    if arguments.home:
        os.environ["ACCELKD_HOME"] = arguments.home
    try:
        with shared_lock(Home.from_environment()) if arguments.run in _SHARE_HOME else nullcontext():
            return int(arguments.run(arguments))
    except (ValueError, LookupError, OSError) as error:
        print(f"accelkd: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="accelkd", description="Wrist recordings to health-relevant embeddings.")
    parser.add_argument("--home", help="where all state lives (default: $ACCELKD_HOME, else ./.accelkd)")
    commands = parser.add_subparsers(required=True, metavar="command")

    simulate = commands.add_parser("simulate", help="land a simulated arrival batch")
    simulate.add_argument("--participants", type=int, required=True, metavar="N")
    simulate.add_argument("--segments", type=int, required=True, metavar="K", help="one-minute recordings of each")
    simulate.add_argument("--seed", type=int, required=True)
    simulate.add_argument("--batch", required=True, metavar="ID")
    simulate.add_argument("--profile", default="realistic", help="difficulty: easy, realistic or hard")
    simulate.add_argument("--rate-hz", type=int, default=64, choices=(64, 256))
    simulate.add_argument("--first-participant", type=int, default=0, metavar="N", help="number of the first person")
    simulate.add_argument("--max-participants", type=int, default=MAX_PARTICIPANTS, metavar="N", help=_CUT)
    simulate.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    simulate.set_defaults(run=_simulate)

    ingest = commands.add_parser("ingest", help="land the recordings that a device exported")
    ingest.add_argument("device", help="e4, bami, wrist-edf, troika or polar (docs/devices.md)")
    ingest.add_argument("folder", type=Path)
    ingest.add_argument("--batch", required=True, metavar="ID")
    ingest.add_argument("--replaces", metavar="ID", help="the landed batch that this one corrects")
    ingest.add_argument("--max-participants", type=int, default=MAX_PARTICIPANTS, metavar="N", help=_CUT)
    ingest.set_defaults(run=_ingest)

    validate = commands.add_parser("validate", help="check an arrival batch against every rule")
    validate.add_argument("batch", help="a batch in the landing zone, or the path of a batch folder")
    validate.set_defaults(run=_validate)

    reproduce = commands.add_parser("reproduce", help="run the paper's experiments on a simulated cohort")
    what = reproduce.add_mutually_exclusive_group(required=True)
    what.add_argument("--preset", help="smoke, small, longer, gpu-miniature or gpu (docs/reproduction.md)")
    what.add_argument("--merge", nargs="+", type=Path, metavar="DIR", help="one report of several folders of results")
    reproduce.add_argument("--only", nargs="+", default=[], metavar="TABLE", help="such as table-3 figure-4")
    reproduce.add_argument("--workers", type=int, metavar="N", help="processes (default: cores, or 1 on a GPU)")
    reproduce.add_argument(
        "--budget-min", type=float, metavar="M", help="minutes after which no new run starts; of gpu, all"
    )
    reproduce.add_argument("--out", type=Path, metavar="DIR", help="where the files that travel go: of gpu and --merge")
    reproduce.add_argument(
        "--weights", nargs="+", type=Path, default=[], metavar="DIR", help="the --out of earlier calls, to go on from"
    )
    reproduce.add_argument("--seeds", nargs="+", type=int, default=[], metavar="N", help="instead of the preset's")
    reproduce.set_defaults(run=_reproduce)

    configure = commands.add_parser("configure", help="show or change what this home is set to")
    configure.add_argument("--preset", choices=get_args(PresetName), help="sizes and schedules of the training")
    configure.add_argument("--motion-gate", choices=get_args(MotionGate))
    configure.add_argument("--hop-s", type=float)
    configure.add_argument("--split-seed", type=int)
    configure.add_argument("--test-fraction", type=float)
    configure.add_argument(
        "--retrain-after-participants", type=int, metavar="N", help="new ones that start a training; 0: weekly only"
    )
    configure.set_defaults(run=_configure)

    train = commands.add_parser("train", help="train teacher and student on this home's segments (also by torchrun)")
    train.add_argument("--preset", choices=get_args(PresetName), help="instead of the one that this home is set to")
    train.add_argument("--device", default="auto", help="auto, cpu or cuda")
    train.set_defaults(run=_train)

    promote = commands.add_parser("promote", help="put the encoders trained last into use, if they measure up")
    promote.add_argument("--force", metavar="REASON", help="whatever they measure")
    promote.set_defaults(run=_promote)

    rollback = commands.add_parser("rollback", help="go back to the encoders that were in use before, at once")
    rollback.add_argument("--reason", default="asked for on the command line")
    rollback.set_defaults(run=_rollback)

    summary = commands.add_parser("summary", help="print the counts and results of the published warehouse")
    summary.set_defaults(run=_summary)

    withdraw = commands.add_parser("withdraw", help="remove a participant from every file, and search for traces")
    withdraw.add_argument("participant", nargs="?", help="default: finish a withdrawal that was interrupted")
    withdraw.set_defaults(run=_withdraw)

    rebuild = commands.add_parser("rebuild-warehouse", help="make the warehouse anew from the files of this home")
    rebuild.set_defaults(run=_rebuild_warehouse)
    return parser


def _simulate(arguments: argparse.Namespace) -> int:
    from accelkd.recordings.simulator import simulate_batch

    home = Home.from_environment()
    last = arguments.first_participant + arguments.participants
    firsts = range(arguments.first_participant, max(last, arguments.first_participant + 1), arguments.max_participants)
    for batch_id, first in zip(batch_ids(arguments.batch, len(firsts)), firsts, strict=True):
        manifest = simulate_batch(
            home.landing,
            batch_id,
            participants=min(arguments.max_participants, last - first),
            segments=arguments.segments,
            seed=arguments.seed,
            profile=arguments.profile,
            rate_hz=arguments.rate_hz,
            first_participant=first,
            processes=arguments.processes,
        )
        print(
            f"batch {manifest.batch_id}: {manifest.rows('participants')} participants, "
            f"{manifest.rows('recordings')} recordings in {home.batch(manifest.batch_id)}"
        )
    return 0


def _ingest(arguments: argparse.Namespace) -> int:
    from accelkd.recordings.ingest import ingest

    check_identifier("batch_id", arguments.batch)  # before the lock's file is made
    home = Home.from_environment()
    with shared_lock(home):
        summary = ingest(
            arguments.device,
            arguments.folder,
            home.landing,
            arguments.batch,
            replaces=arguments.replaces,
            max_participants=arguments.max_participants,
        )
    print(summary)
    return 0 if summary.read else 1


def _validate(arguments: argparse.Namespace) -> int:
    from accelkd.recordings.validate import validate_batch

    folder = Path(arguments.batch)
    if not folder.is_dir():
        folder = Home.from_environment().batch(arguments.batch)
    violations = validate_batch(folder)
    for violation in violations:
        print(violation)
    print(f"{folder.name}: {len(violations)} violations" if violations else f"{folder.name}: valid")
    return 1 if violations else 0


def _reproduce(arguments: argparse.Namespace) -> int:
    began = time.monotonic()  # before torch is loaded
    from accelkd.reproduction.experiments import preset
    from accelkd.reproduction.packed import merge
    from accelkd.reproduction.run import reproduce
    from accelkd.reproduction.timed import DeviceLostError, reproduce_in_time

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave in order: worker processes end too
    command = shlex.join(["accelkd", *arguments.typed])
    if arguments.merge:
        if arguments.out is None:
            raise ValueError("--merge needs --out, the folder of the common report")
        print(merge(arguments.merge, arguments.out))
        return 0
    chosen, home = preset(arguments.preset), Home.from_environment()
    if chosen.time_plan is None and (arguments.out or arguments.weights or arguments.seeds):
        raise ValueError(
            f"--out, --weights and --seeds are for presets of a given time; {chosen.name} has its own length"
        )
    if chosen.time_plan is not None:
        if arguments.out is None or arguments.budget_min is None or arguments.only or arguments.workers:
            raise ValueError(f"preset {chosen.name} needs --budget-min and --out, and takes no --only or --workers")
        try:
            outcome = reproduce_in_time(
                home,
                chosen,
                arguments.budget_min,
                arguments.out,
                weights=arguments.weights,
                seeds=arguments.seeds,
                command=command,
                began=began,
            )
        except DeviceLostError as error:
            print(f"accelkd: {error}", file=sys.stderr)
            return _DEVICE_LOST
    else:
        outcome = reproduce(
            home,
            chosen,
            only=arguments.only,
            workers=arguments.workers,
            budget_min=arguments.budget_min,
            command=command,
        )
    print(f"{len(outcome.done)} runs done, {len(outcome.failed)} failed, {len(outcome.left)} left: {outcome.report}")
    return 1 if outcome.failed else 0


def _train(arguments: argparse.Namespace) -> int:
    from accelkd.operations.train import train_all
    from accelkd.training.parallel import process_group, rank
    from accelkd.training.trainer import pick_device

    home = Home.from_environment()
    with process_group(pick_device(arguments.device)):
        for trained in train_all(home, preset=arguments.preset, device=arguments.device):
            if rank() == 0:
                print(f"{trained.encoder}: {trained.folder}")
    return 0


def _configure(arguments: argparse.Namespace) -> int:
    home = Home.from_environment()
    given = {name: getattr(arguments, name) for name in vars(Settings()) if getattr(arguments, name) is not None}
    settings = replace(Settings.load(home), **given)
    settings.save(home)
    print(f"{home.root}: " + ", ".join(f"{name} = {value}" for name, value in vars(settings).items()))
    return 0


def _promote(arguments: argparse.Namespace) -> int:
    from accelkd.operations.promote import promote

    outcome = promote(Home.from_environment(), force=arguments.force)
    decision = outcome.decision
    print(f"{decision.action}: {', '.join(decision.models.values())}: {decision.reason}")
    for row in decision.criteria:
        verdict = "passed" if row["passed"] else "FAILED"
        print(f"  {verdict}  {row['what']}: {row['measured']}, promoted {row['promoted']}")
    return 0 if outcome.models == decision.models else 1


def _rollback(arguments: argparse.Namespace) -> int:
    from accelkd.operations.promote import roll_back

    decision = roll_back(Home.from_environment(), arguments.reason)
    print(f"promoted again: {', '.join(f'{encoder} {model_id}' for encoder, model_id in decision.models.items())}")
    return 0


def _summary(_: argparse.Namespace) -> int:
    from accelkd.warehouse.summary import summary

    print(summary(Home.from_environment().published))
    return 0


def _withdraw(arguments: argparse.Namespace) -> int:
    from accelkd.operations.withdraw import withdraw

    done = withdraw(Home.from_environment(), arguments.participant)
    print(done)
    return 1 if done.remaining else 0


def _rebuild_warehouse(_: argparse.Namespace) -> int:
    from accelkd.operations.rebuild import rebuild_warehouse

    published = rebuild_warehouse(Home.from_environment())
    print(f"{published.path}: {sum(published.rows.values()):,} rows in {len(published.rows)} tables")
    return 0


_SHARE_HOME = (_train, _promote, _rollback, _rebuild_warehouse)  # what a withdrawal cannot go on beside, with _ingest


if __name__ == "__main__":
    sys.exit(main())
