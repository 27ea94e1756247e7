"""Adopting encoders that were trained elsewhere: for a home whose devices have no PPG, and nothing to train on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from accelkd.home.files import atomic_path
from accelkd.home.layout import Home
from accelkd.models.bundled import NAMES, bundled_folder
from accelkd.models.specs import ENCODERS, encoder_spec
from accelkd.registry.history import Decision, decide, history, make_candidate, promoted_models
from accelkd.registry.trained_on import adopt_trained_on


def adopt(home: Home, sources: Sequence[Path]) -> Decision:
    """Copy a trained teacher with its students into this home, and promote them.

    `sources` is another home, whose promoted encoders are taken, or for each encoder one checkpoint folder, exported
    file of weights or name of an encoder that comes with the package. Of another home it is also copied whom they were
    trained on, so that none of them can become a test participant here. What is adopted already stays. Raises
    FileNotFoundError for a source that is none, ValueError if an encoder is missing or a student learned from another
    teacher, DamagedFileError for damaged weights.
    """
    from accelkd.training.checkpoint import load_encoder, read_config  # imports torch

    checkpoints = _checkpoints(sources)
    if missing := [spec.name for spec in ENCODERS if spec.name not in checkpoints]:
        raise ValueError(f"no {' and no '.join(missing)} in {', '.join(map(str, sources))}: all encoders go together")
    models = {}
    for spec in ENCODERS:
        path, origin = checkpoints[spec.name]
        folder = _copied(home, spec.name, path)
        _, info = load_encoder(folder)
        models[spec.name] = info.model_id
        teacher = None if spec.teacher is None else models[spec.teacher]
        if read_config(folder)["teacher"] != teacher:
            raise ValueError(f"{spec.name} {info.model_id} learned from another teacher than {teacher}")
        adopt_trained_on(home, spec.name, info.model_id, origin)
    for encoder, model_id in models.items():
        make_candidate(home, encoder, model_id, 0)
    if promoted_models(home) == models:
        return history(home)[-1]
    return decide(home, "promoted", models, f"adopted from {', '.join(path.name for path in sources)}")


def _checkpoints(sources: Sequence[Path]) -> dict[str, tuple[Path, Home | None]]:
    """Where the checkpoint of each encoder lies, and the home that it is from."""
    checkpoints: dict[str, tuple[Path, Home | None]] = {}
    for source in (bundled_folder(str(path)) if str(path) in NAMES else path for path in sources):
        if (source / "checkpoints" / "promotions.json").is_file():
            other = Home(source.resolve())
            checkpoints |= {
                name: (other.checkpoint(name, model), other) for name, model in promoted_models(other).items()
            }
        elif (source / "config.json").is_file():
            config = json.loads((source / "config.json").read_text(encoding="utf-8"))
            checkpoints[encoder_spec(config["encoder"]).name] = (source, None)
        elif source.is_file():
            checkpoints[_exported_encoder(source)] = (source, None)
        else:
            raise FileNotFoundError(
                f"{source} is no home with promoted encoders, no folder of a checkpoint, no file of weights and none "
                f"of {', '.join(NAMES)}, which come with the package"
            )
    return checkpoints


def _exported_encoder(source: Path) -> str:
    from accelkd.training.checkpoint import read_exported_config

    return encoder_spec(read_exported_config(source)["encoder"]).name


def _copied(home: Home, encoder: str, source: Path) -> Path:
    """The folder of a checkpoint in this home."""
    from accelkd.training.checkpoint import import_weights, is_complete, read_config

    if source.is_file():
        return import_weights(source, home.encoder(encoder))
    folder = home.checkpoint(encoder, read_config(source)["model_id"])
    if not is_complete(folder):
        with atomic_path(folder) as part:
            shutil.copytree(source, part)
    return folder
