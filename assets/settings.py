"""The settings that outputs depend on, as assets: a changed setting makes stale what it changes, and nothing else.

Dagster learns of a change by an observation, which whatever runs reports (orchestration.outside): at once, and without
loading the definitions again.
"""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict

import dagster as dg

from accelkd.home.files import sha256_json
from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from assets.metadata import tags

warnings.filterwarnings("ignore", message="Function `multi_observable_source_asset`", category=dg.BetaWarning)

SEGMENT_SETTINGS, SPLIT_SETTINGS, TRAINING_SETTINGS = "segment_settings", "split_settings", "training_settings"
_NAMES: Mapping[str, tuple[str, ...]] = {
    SEGMENT_SETTINGS: ("motion_gate", "hop_s"),
    SPLIT_SETTINGS: ("split_seed", "test_fraction"),
    TRAINING_SETTINGS: ("preset",),
}


@dg.multi_observable_source_asset(  # type: ignore[untyped-decorator]  # Dagster's, untyped
    name="observe_settings",
    specs=[
        dg.AssetSpec(
            name,
            group_name="settings",
            kinds={"json"},
            owners=["team:research"],
            tags=tags("summaries", "manual"),
            description=f"{' and '.join(f'`{setting}`' for setting in settings)} of this home, as `accelkd configure` "
            "has set them. After a change what depends on them is stale.",
        )
        for name, settings in _NAMES.items()
    ],
    can_subset=True,
)
def settings_assets(context: dg.AssetExecutionContext, home: dg.ResourceParam[Home]) -> Iterator[dg.ObserveResult]:
    """Observe what is set."""
    for name, chosen in values(Settings.load(home)).items():
        if dg.AssetKey(name) in context.selected_asset_keys:
            yield dg.ObserveResult(name, data_version=dg.DataVersion(version(chosen)), metadata=chosen)


def values(settings: Settings) -> dict[str, dict[str, str | int | float]]:
    """The settings of each asset, by name."""
    everything = asdict(settings)
    return {name: {setting: everything[setting] for setting in names} for name, names in _NAMES.items()}


def version(chosen: Mapping[str, object]) -> str:
    """Data version of the settings of one asset."""
    return sha256_json(dict(chosen))[:16]
