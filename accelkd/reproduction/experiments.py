"""Every experiment of the paper as data: what is trained, from which teacher, with which seeds, in several sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from accelkd.models.efficientnet import EfficientNetShape
from accelkd.models.transformer import SIZES, TransformerShape
from accelkd.recordings.labels import LABELS
from accelkd.reproduction.cohort import CohortPlan
from accelkd.training.augment import Augmentations
from accelkd.training.contrastive import ContrastiveConfig
from accelkd.training.distillation import DistillationConfig
from accelkd.training.masked_autoencoding import MaskedAutoencodingConfig
from accelkd.training.method import EncoderConfig
from accelkd.training.optimisation import Optimisation, efficientnet_optimisation, scaled_schedule
from accelkd.training.supervised import SupervisedConfig

SUPERVISED = "accel-supervised"  # the name under which all supervised encoders are reported
AUGMENTATIONS = ("cut_out", "gaussian_noise", "magnitude_warp", "channel_permute", "time_warp")
MAIN = ("ppg-mae", "accel-mae", "accel-cl", "accel-kd-mae")  # trained with every seed of the preset
MAPPED = ("ppg-mae", "accel-mae", "accel-kd-mae")  # figure 3
# Order within a time budget
_ABLATIONS = (
    *("table-17", "table-19", "table-3", "table-14", "table-18", "table-13", "table-15", "table-16", "figure-4"),
)


Stage = Literal[
    "masked",
    "contrastive",
    "contrastive_efficientnet",
    "distillation",
    "distillation_efficientnet",
    "supervised",
]


@dataclass(frozen=True)
class Experiment:
    """One encoder to train and to evaluate."""

    name: str
    config: EncoderConfig
    teacher: str | None = None  # experiment whose encoder teaches, or from which a trainable teacher starts
    aligned_with: str | None = None  # PPG experiment that this one is aligned with after training (Procrustes)
    label_fraction: float | None = None  # of a supervised encoder
    stage: Stage = "distillation"  # experiments of one stage are trained for the same number of steps

    @property
    def reported_as(self) -> str:
        """The name in the result files: all supervised encoders are reported as one experiment."""
        return SUPERVISED if isinstance(self.config, SupervisedConfig) else self.name

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the experiments that must be trained before."""
        return tuple(name for name in (self.teacher, self.aligned_with) if name is not None)


@dataclass(frozen=True)
class Run:
    """One experiment with one seed."""

    experiment: Experiment
    seed: int

    @property
    def name(self) -> str:
        """The experiment's name with the seed, unique within a preset."""
        return f"{self.experiment.name}-{self.seed}"

    @property
    def config(self) -> EncoderConfig:
        """The experiment's configuration with this seed."""
        config = self.experiment.config
        return replace(config, optimisation=replace(config.optimisation, seed=self.seed))


@dataclass(frozen=True)
class TimePlan:
    """How a time budget is divided; training lengths follow from measured speeds (accelkd.reproduction.timed)."""

    first: tuple[str, ...]  # experiments with a share, in their order; then MAIN with the other seeds, then the rest
    weights: Mapping[Stage, float]  # of one run's share
    kept: tuple[str, ...]  # experiments whose weights are exported


@dataclass(frozen=True)
class ExperimentPreset:
    """A cohort, and the experiments on it: most important first, but each after those that it needs."""

    name: str
    cohort: CohortPlan
    experiments: Mapping[str, Experiment]
    seeds: tuple[int, ...]  # of MAIN; all others have the first
    label_fractions: tuple[float, ...]
    pools: int  # bootstrap candidate pools of the retrieval
    embedded_segments: int | None = None  # of each training participant, for probes to be fitted on; None: all
    time_plan: TimePlan | None = None  # of a preset with a time budget

    def runs(self, only: Iterable[str] = ()) -> list[Run]:
        """The runs in their order: all experiments with the first seed, then MAIN with the others.

        `only` names tables and figures such as 'table-3'; then only what they need is run. Raises ValueError that lists
        the known names for an unknown one.
        """
        wanted = self._needed(only)
        first = [Run(self.experiments[name], self.seeds[0]) for name in wanted]
        more = [Run(self.experiments[name], seed) for seed in self.seeds[1:] for name in wanted if name in MAIN]
        return first + more

    def timed_runs(self) -> list[Run]:
        """The runs in the order of the time plan, then those without a share in the order of their tables."""
        assert self.time_plan is not None  # of every preset that is asked
        tables = shown_in(self.experiments)
        ablations = [name for table in _ABLATIONS for name in tables[table]]
        order = list(dict.fromkeys([*self.time_plan.first, *ablations, *self.experiments]))
        first = [Run(self.experiments[name], self.seeds[0]) for name in order]
        main = [name for name in order if name in MAIN]
        more = [Run(self.experiments[name], seed) for seed in self.seeds[1:] for name in main]
        with_share = len(self.time_plan.first)
        return [*first[:with_share], *more, *first[with_share:]]

    def _needed(self, only: Iterable[str]) -> list[str]:
        tables = shown_in(self.experiments)
        unknown = sorted(set(only) - set(tables))
        if unknown:
            raise ValueError(f"there is no {unknown[0]!r} to run; there are {', '.join(tables)}")
        names = {name for table in only for name in tables[table]} or set(self.experiments)
        while more := {parent for name in names for parent in self.experiments[name].needs} - names:
            names |= more
        return [name for name in self.experiments if name in names]


def shown_in(names: Iterable[str]) -> dict[str, list[str]]:
    """The experiments among `names` that each table and figure of the paper with trained encoders shows."""
    names = list(names)

    def starting(prefix: str) -> list[str]:
        return [name for name in names if name.startswith(prefix)]

    probed = ["ppg-mae", "ppg-cl", "accel-mae", "accel-cl", "accel-kd-mae", "accel-kd-cl"]
    pretrained = ["accel-kd-mae", "accel-kd-cl", "accel-mae", "accel-cl"]
    contrastive = ["accel-cl", "ppg-cl", "accel-kd-cl"]
    shown = {
        "table-1": list(MAPPED),
        "table-2": pretrained,
        "table-3": ["accel-kd-mae", "simultaneous-random-lambda-1"],
        "table-7": ["accel-kd-mae", *starting("kd-size-")],
        "table-8": list(MAPPED),
        "table-9": [*probed, *starting("supervised-hr_bpm-")],
        "table-10": [*probed, *starting("supervised-sdnn_ms-")],
        "table-11": [*probed, *starting("supervised-rmssd_ms-")],
        "table-12": pretrained,
        "table-13": [
            *contrastive,
            *(f"{name}-transformer" for name in contrastive),
            "accel-kd-mae-efficientnet",
            "accel-kd-mae-stem",
        ],
        "table-14": ["ppg-cl", "ppg-cl-participant", "accel-kd-mae", "accel-kd-cl", "accel-kd-cl-participant"],
        "table-15": ["ppg-mae", "ppg-mae-1-channel"],
        "table-16": ["ppg-mae", "ppg-mae-16-layers"],
        "table-17": ["accel-kd-mae", *starting("kd-augment-")],
        "table-18": ["accel-kd-mae", *starting("kd-lambda-")],
        "table-19": ["accel-kd-mae", *starting("kd-lambda-"), *starting("simultaneous-")],
        "figure-2": [*probed, *starting("supervised-")],
        "figure-3": list(MAPPED),
        "figure-4": ["accel-mae", "accel-cl", "accel-kd-mae", *starting("kd-size-")],
    }
    return {table: [name for name in listed if name in names] for table, listed in shown.items()}


@dataclass(frozen=True)
class _Length:
    steps: int
    batch_size: int
    learning_rate: float


@dataclass(frozen=True)
class _Scale:
    """Sizes and lengths of one preset."""

    sizes: Mapping[str, TransformerShape]  # table 7; XL is the encoder of all other experiments
    decoder: TransformerShape
    efficientnet: EfficientNetShape
    masked: _Length
    contrastive: _Length
    contrastive_efficientnet: _Length
    distillation: _Length
    distillation_efficientnet: _Length
    supervised: _Length
    label_fractions: tuple[float, ...]
    precision: Literal["bf16", "fp32"]
    log_every: int

    def optimisation(self, length: _Length, efficientnet: bool = False) -> Optimisation:
        if efficientnet:
            made = efficientnet_optimisation(length.steps, length.batch_size, length.learning_rate)
        else:
            warmup_steps, decay_steps = scaled_schedule(length.steps)
            made = Optimisation(
                length.steps,
                length.batch_size,
                length.learning_rate,
                warmup_steps=warmup_steps,
                decay_steps=decay_steps,
            )
        return replace(made, precision=self.precision, log_every=self.log_every, save_every=10 * self.log_every)


def _experiments(scale: _Scale) -> dict[str, Experiment]:
    """All experiments; those that most others need or most tables show come first."""
    encoder, efficientnet = scale.sizes["XL"], scale.efficientnet
    masked, supervised = scale.optimisation(scale.masked), scale.optimisation(scale.supervised)
    ppg_mae = MaskedAutoencodingConfig("ppg", encoder, scale.decoder, masked)
    ppg_cl = ContrastiveConfig("ppg", efficientnet, scale.optimisation(scale.contrastive_efficientnet, True))
    ppg_cl_transformer = ContrastiveConfig("ppg", encoder, scale.optimisation(scale.contrastive))
    kd = DistillationConfig(encoder, scale.optimisation(scale.distillation))
    kd_cl = DistillationConfig(efficientnet, scale.optimisation(scale.distillation_efficientnet, True))
    simultaneous = replace(kd, teacher="trainable")
    twice_as_deep = replace(encoder, layers=2 * encoder.layers)
    with_stem = replace(encoder, stem="convolutional")
    none = Augmentations(**dict.fromkeys(AUGMENTATIONS, 0.0))
    weights = (0.0, 0.25, 0.5, 0.75)

    experiments = [
        Experiment("ppg-mae", ppg_mae, stage="masked"),
        Experiment("accel-kd-mae", kd, teacher="ppg-mae"),
        Experiment("accel-mae", replace(ppg_mae, modality="accel"), aligned_with="ppg-mae", stage="masked"),
        Experiment("ppg-cl", ppg_cl, stage="contrastive_efficientnet"),
        Experiment("accel-cl", replace(ppg_cl, modality="accel"), stage="contrastive_efficientnet"),
        Experiment("accel-kd-cl", kd_cl, teacher="ppg-cl", stage="distillation_efficientnet"),
        *(
            Experiment(
                f"supervised-{label.name}-{fraction:g}",
                SupervisedConfig("accel", encoder, label.name, supervised),
                label_fraction=fraction,
                stage="supervised",
            )
            for label in LABELS.values()
            for fraction in scale.label_fractions
        ),
        *(
            Experiment(
                f"simultaneous-random-lambda-{weight:g}",
                replace(simultaneous, teacher_weight=weight, teacher_encoder=encoder),
            )
            for weight in (1.0, 0.5, 0.0)
        ),
        Experiment("kd-augment-none", replace(kd, augmentations=none), teacher="ppg-mae"),
        *(
            Experiment(
                f"kd-augment-{name.replace('_', '-')}",
                replace(kd, augmentations=replace(none, **{name: 1.0})),
                teacher="ppg-mae",
            )
            for name in AUGMENTATIONS
        ),
        *(
            Experiment(f"kd-lambda-{weight:g}", replace(kd, teacher_weight=weight), teacher="ppg-mae")
            for weight in weights
        ),
        *(
            Experiment(f"kd-size-{size.lower()}", replace(kd, encoder=scale.sizes[size]), teacher="ppg-mae")
            for size in ("XS", "S", "M", "L")
        ),
        Experiment("ppg-mae-1-channel", replace(ppg_mae, ppg_channels=1), stage="masked"),
        Experiment("ppg-mae-16-layers", replace(ppg_mae, encoder=twice_as_deep), stage="masked"),
        Experiment("ppg-cl-participant", replace(ppg_cl, positives="participant"), stage="contrastive_efficientnet"),
        Experiment("accel-kd-cl-participant", kd_cl, teacher="ppg-cl-participant", stage="distillation_efficientnet"),
        Experiment("ppg-cl-transformer", ppg_cl_transformer, stage="contrastive"),
        Experiment("accel-cl-transformer", replace(ppg_cl_transformer, modality="accel"), stage="contrastive"),
        Experiment("accel-kd-cl-transformer", kd, teacher="ppg-cl-transformer"),
        # Not in the paper: the main student in accel-cl's architecture, and behind a convolutional stem
        Experiment("accel-kd-mae-efficientnet", kd_cl, teacher="ppg-mae", stage="distillation_efficientnet"),
        Experiment("accel-kd-mae-stem", replace(kd, encoder=with_stem), teacher="ppg-mae"),
        *(
            Experiment(
                f"simultaneous-pretrained-lambda-{weight:g}",
                replace(simultaneous, teacher_weight=weight),
                teacher="ppg-mae",
            )
            for weight in (1.0, 0.5, 0.0)
        ),
    ]
    return {experiment.name: experiment for experiment in experiments}


def experiment_preset(name: str) -> ExperimentPreset:
    """The preset of that name. Raises ValueError that lists the known names for an unknown one."""
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def as_data(config: EncoderConfig) -> dict[str, Any]:
    """A configuration as JSON-compatible data, with its class: configurations that train differently differ in it."""
    return {"kind": type(config).__name__, **asdict(config)}


def _preset(
    name: str,
    cohort: CohortPlan,
    seeds: tuple[int, ...],
    pools: int,
    scale: _Scale,
    names: Sequence[str] | None = None,
    embedded_segments: int | None = None,
    time_plan: TimePlan | None = None,
) -> ExperimentPreset:
    """A preset of all experiments, or of those that are named."""
    experiments = _experiments(scale)
    chosen = {experiment: experiments[experiment] for experiment in (experiments if names is None else names)}
    return ExperimentPreset(name, cohort, chosen, seeds, scale.label_fractions, pools, embedded_segments, time_plan)


_SMOKE = _Length(steps=4, batch_size=8, learning_rate=1e-3)
_FRACTIONS = (0.001, 0.01, 0.1, 1.0)  # figure 2
# Two CPU cores: the encoder of the pipeline's `demo`, and table 7 scaled down alike
_SMALL = _Scale(
    sizes={
        "XS": TransformerShape(32, 1, 1, 128),
        "S": TransformerShape(32, 2, 1, 128),
        "M": TransformerShape(48, 2, 2, 256),
        "L": TransformerShape(64, 2, 2, 256),
        "XL": TransformerShape(64, 3, 2, 256),
    },
    decoder=TransformerShape(64, 1, 2, 256),
    efficientnet=EfficientNetShape(width=64, width_multiplier=0.125),
    masked=_Length(steps=1600, batch_size=16, learning_rate=2e-3),
    contrastive=_Length(steps=400, batch_size=32, learning_rate=2e-3),
    contrastive_efficientnet=_Length(steps=500, batch_size=32, learning_rate=2e-3),
    distillation=_Length(steps=800, batch_size=32, learning_rate=2e-3),
    distillation_efficientnet=_Length(steps=500, batch_size=32, learning_rate=2e-3),
    supervised=_Length(steps=600, batch_size=16, learning_rate=1e-3),
    label_fractions=_FRACTIONS,
    precision="fp32",
    log_every=20,
)
# What `longer` trains, in this order: claims that three times as many steps could decide
_LONGER = (
    "ppg-mae",
    "accel-kd-mae",
    "accel-mae",
    "accel-cl",
    "ppg-cl",
    "accel-kd-cl",
    "accel-cl-transformer",
    "ppg-cl-transformer",
    "accel-kd-cl-transformer",
    "accel-kd-mae-efficientnet",
    "ppg-cl-participant",
    "kd-size-s",
)


def _longer(scale: _Scale, times: int) -> _Scale:
    """The same encoders, trained for `times` as many steps."""
    lengths = {stage: getattr(scale, stage) for stage in get_args(Stage)}
    return replace(scale, **{name: replace(length, steps=times * length.steps) for name, length in lengths.items()})


_TINY = _Scale(
    sizes={
        "XS": TransformerShape(8, 1, 1, 16),
        "S": TransformerShape(8, 2, 1, 16),
        "M": TransformerShape(12, 1, 1, 32),
        "L": TransformerShape(14, 1, 1, 32),
        "XL": TransformerShape(16, 1, 2, 32),
    },
    decoder=TransformerShape(16, 1, 2, 32),
    efficientnet=EfficientNetShape(width=16, width_multiplier=0.125),
    masked=_SMOKE,
    contrastive=_SMOKE,
    contrastive_efficientnet=replace(_SMOKE, steps=2),
    distillation=_SMOKE,
    distillation_efficientnet=replace(_SMOKE, steps=2),
    supervised=_SMOKE,
    label_fractions=(0.001, 1.0),
    precision="fp32",
    log_every=2,
)
# Supervised encoders at two label fractions, as tables 9 to 11 print them
_TIME_PLAN = TimePlan(
    first=(
        *("ppg-mae", "accel-kd-mae", "accel-mae", "ppg-cl", "accel-cl", "accel-kd-cl"),
        *(f"supervised-{target}-{fraction:g}" for fraction in (1.0, 0.001) for target in LABELS),
        *("accel-kd-mae-stem", "accel-kd-mae-efficientnet"),
    ),
    weights={
        "masked": 15,
        "contrastive": 10,
        "contrastive_efficientnet": 10,
        "distillation": 17,
        "distillation_efficientnet": 10,
        "supervised": 2,
    },
    kept=("ppg-mae", "accel-kd-mae", "accel-kd-mae-efficientnet", "accel-kd-mae-stem"),
)

PRESETS = {
    # Minutes: shows that everything runs
    "smoke": _preset("smoke", CohortPlan("easy", participants=24, segments=6), seeds=(0, 1), pools=5, scale=_TINY),
    # All experiments on two CPU cores: about two hours
    "small": _preset("small", CohortPlan("easy", participants=480, segments=8), (0, 1, 2), pools=100, scale=_SMALL),
    # What `small` leaves open: the same encoders, longer, with two and a half times as many people to test on
    "longer": _preset(
        "longer",
        CohortPlan("easy", participants=1_200, segments=8),
        (0,),
        pools=100,
        scale=replace(_longer(_SMALL, 3), precision="bf16", log_every=60),
        names=_LONGER,
    ),
    # What `gpu` does, in two minutes of two cores
    "gpu-miniature": _preset(
        "gpu-miniature",
        CohortPlan("easy", participants=120, segments=6, participants_per_batch=30, keep_recordings=False),
        seeds=(0, 1, 2),
        pools=5,
        scale=_TINY,
        embedded_segments=4,
        time_plan=_TIME_PLAN,
    ),
    # The paper's sizes on one data-centre GPU, within a time budget
    "gpu": _preset(
        "gpu",
        CohortPlan("realistic", participants=20_000, segments=20, participants_per_batch=250, keep_recordings=False),
        seeds=(0, 1, 2),
        pools=100,
        scale=_Scale(
            sizes=SIZES,
            decoder=TransformerShape(256, 4, 8, 1024),
            efficientnet=EfficientNetShape(),
            masked=_Length(steps=4_000, batch_size=512, learning_rate=5e-4),
            contrastive=_Length(steps=2_000, batch_size=256, learning_rate=1e-3),
            contrastive_efficientnet=_Length(steps=2_000, batch_size=256, learning_rate=1e-3),
            distillation=_Length(steps=4_000, batch_size=256, learning_rate=1e-3),
            distillation_efficientnet=_Length(steps=2_000, batch_size=256, learning_rate=1e-3),
            supervised=_Length(steps=600, batch_size=256, learning_rate=1e-3),
            label_fractions=_FRACTIONS,
            precision="bf16",
            log_every=20,
        ),
        embedded_segments=6,
        time_plan=_TIME_PLAN,
    ),
}
