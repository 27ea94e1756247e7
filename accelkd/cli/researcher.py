"""Commands of who trains encoders and judges them."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from accelkd.cli.arguments import AtLeastOne, CommandLine, DeviceName, NotNegative, OpenedHome, Positive, several
from accelkd.home.locks import shared_lock
from accelkd.home.settings import PresetName

_DEVICE_LOST = 75  # exit status: the same command in a new process goes on (EX_TEMPFAIL of sysexits.h)


def train(
    *,
    preset: Annotated[PresetName | None, Parameter(help="instead of the one that this home is set to")] = None,
    device: Annotated[DeviceName, Parameter(help="auto, cpu or cuda")] = "auto",
    home: OpenedHome,
) -> int:
    """Train teacher and student on this home's segments (also by torchrun)."""
    from accelkd.operations.train import train_all
    from accelkd.training.parallel import process_group, rank
    from accelkd.training.trainer import pick_device

    with shared_lock(home), process_group(pick_device(device)):
        for trained in train_all(home, preset=preset, device=device):
            if rank() == 0:
                print(f"{trained.encoder}: {trained.folder}")
    return 0


def promote(
    *,
    force: Annotated[str | None, Parameter(help="the reason to promote them whatever they measure")] = None,
    home: OpenedHome,
) -> int:
    """Promote the encoders trained last, if they measure up."""
    from accelkd.operations.promote import promote as promote_candidates

    with shared_lock(home):
        outcome = promote_candidates(home, force=force)
    decision = outcome.decision
    print(f"{decision.action}: {', '.join(decision.models.values())}: {decision.reason}")
    for row in decision.criteria:
        verdict = "passed" if row["passed"] else "FAILED"
        print(f"  {verdict}  {row['what']}: {row['measured']}, promoted {row['promoted']}")
    return 0 if outcome.models == decision.models else 1


def adopt(
    sources: Annotated[
        tuple[Path, ...],
        Parameter(
            help="another home; or of each encoder a bundled name, a checkpoint folder or an exported file of weights"
        ),
    ],
    /,
    *,
    home: OpenedHome,
) -> int:
    """Promote a teacher and its students that were trained elsewhere."""
    from accelkd.operations.adopt import adopt as adopt_encoders

    with shared_lock(home):
        decision = adopt_encoders(home, sources)
    print(f"{decision.reason}: {', '.join(f'{encoder} {model_id}' for encoder, model_id in decision.models.items())}")
    return 0


def rollback(
    *,
    reason: Annotated[str, Parameter(help="kept in the history of promotions")] = "asked for on the command line",
    home: OpenedHome,
) -> int:
    """Promote the previous encoders again, at once."""
    from accelkd.operations.promote import roll_back

    with shared_lock(home):
        decision = roll_back(home, reason)
    print(f"promoted again: {', '.join(f'{encoder} {model_id}' for encoder, model_id in decision.models.items())}")
    return 0


def export(
    encoder: Annotated[str, Parameter(help="a promoted encoder, such as accel_student, or a checkpoint folder")],
    /,
    *,
    to: Annotated[Literal["onnx", "executorch", "coreml"], Parameter(help="each needs the extra of its name")],
    out: Annotated[Path, Parameter(help="folder of the package: the model, its readouts, preprocessing.json")],
    int8: Annotated[bool, Parameter(negative=(), help="integers of 8 bits: a third of the size")] = False,
    calibrate: Annotated[str | None, Parameter(help="segmented batch, for int8 of an EfficientNet")] = None,
    home: OpenedHome,
) -> int:
    """Write an encoder as a folder that is used without Python."""
    from accelkd.operations.export import export_encoder

    package = export_encoder(home, encoder, out, to=to, int8=int8, calibrate=calibrate)
    verified = "converted, not run here"
    if package.difference is not None:
        verified = f"within {package.difference.largest:.1g} of torch"
    print(f"{package.model}: {package.model_bytes / 1e6:.2f} MB, {verified}")
    return 0


def reproduce(
    *,
    preset: Annotated[
        str | None, Parameter(help="smoke, small, longer, gpu-miniature or gpu (docs/reproduction.md)")
    ] = None,
    merge: Annotated[tuple[Path, ...], several, Parameter(help="one report of several folders of results")] = (),
    only: Annotated[tuple[str, ...], several, Parameter(help="tables and figures, such as table-3 figure-4")] = (),
    on: Annotated[
        Literal["processes", "ray"], Parameter(help="of this machine, or tasks of a Ray cluster")
    ] = "processes",
    workers: Annotated[AtLeastOne | None, Parameter(help="at once (default: cores, or 1 on a GPU)")] = None,
    budget_min: Annotated[Positive | None, Parameter(help="minutes after which no new run starts; of gpu, all")] = None,
    out: Annotated[Path | None, Parameter(help="where the files that travel go: of gpu and --merge")] = None,
    weights: Annotated[tuple[Path, ...], several, Parameter(help="the --out of earlier calls, to go on from")] = (),
    seeds: Annotated[tuple[NotNegative, ...], several, Parameter(help="instead of the preset's")] = (),
    home: OpenedHome,
    command_line: CommandLine,
) -> int:
    """Run the paper's experiments on a simulated cohort."""
    began = time.monotonic()  # before torch is loaded
    if (preset is None) == (not merge):
        raise ValueError("reproduce takes either --preset or --merge")
    if preset is None:
        if out is None:
            raise ValueError("--merge needs --out, the folder of the common report")
        from accelkd.reproduction.packed import merge as merge_results

        print(merge_results(merge, out))
        return 0
    from accelkd.reproduction.experiments import experiment_preset
    from accelkd.reproduction.run import reproduce as reproduce_all
    from accelkd.reproduction.timed import DeviceLostError, reproduce_in_time

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave in order: worker processes end too
    command = shlex.join(["accelkd", *command_line])
    chosen = experiment_preset(preset)
    if chosen.time_plan is None:
        if out or weights or seeds:
            raise ValueError(
                f"--out, --weights and --seeds are for presets of a given time; {chosen.name} has its own length"
            )
        outcome = reproduce_all(home, chosen, only=only, on=on, workers=workers, budget_min=budget_min, command=command)
    else:
        if out is None or budget_min is None or only or workers or on != "processes":
            raise ValueError(
                f"preset {chosen.name} needs --budget-min and --out, and takes no --only, --on or --workers"
            )
        try:
            outcome = reproduce_in_time(
                home, chosen, budget_min, out, weights=weights, seeds=seeds, command=command, began=began
            )
        except DeviceLostError as error:
            print(f"accelkd: {error}", file=sys.stderr)
            return _DEVICE_LOST
    print(
        f"{len(outcome.done)} runs done, {len(outcome.failed)} failed, {len(outcome.remaining)} left: {outcome.report}"
    )
    return 1 if outcome.failed else 0
