"""The augmentation cascade."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from accelkd.training.augment import (
    Augmentations,
    augment,
    augment_all,
    augment_selected,
    channel_permute,
    cut_out,
    gaussian_noise,
    magnitude_warp,
    probabilities,
    spline,
    time_warp,
)
from accelkd.training.randomness import step_keys

SMOOTH = spline(3840, torch.device("cpu"))
OFF = Augmentations(cut_out=0, magnitude_warp=0, gaussian_noise=0, channel_permute=0, time_warp=0)
NAMES = [field.name for field in fields(Augmentations)][:5]


def signal(batch: int, channels: int, samples: int) -> torch.Tensor:
    return torch.randn(batch, channels, samples, generator=torch.Generator().manual_seed(batch + samples))


def changed(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    return (before != after).flatten(1).any(1)


@given(
    batch=st.integers(1, 6),
    channels=st.integers(1, 4),
    samples=st.sampled_from([64, 640, 3840]),
    seed=st.integers(0, 2**31),
    probability=st.floats(0, 1),
)
@settings(max_examples=30)
def test_shape_and_finiteness_survive_and_the_input_is_left_alone(
    batch: int, channels: int, samples: int, seed: int, probability: float
) -> None:
    x = signal(batch, channels, samples)
    before = x.clone()
    y = augment(x, step_keys(seed, 0, batch), Augmentations(*[probability] * 5))
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert y.isfinite().all()
    assert torch.equal(x, before)


def test_off_is_the_identity() -> None:
    x = signal(8, 3, 3840)
    assert torch.equal(augment(x, step_keys(0, 0, 8), OFF), x)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("probability", [0.15, 0.4, 1.0])
def test_each_is_applied_with_its_probability(name: str, probability: float) -> None:
    count = 2000
    x = signal(count, 4, 640)
    hit = changed(x, augment(x, step_keys(1, 0, count), replace(OFF, **{name: probability})))
    expected = probability * (23 / 24 if name == "channel_permute" else 1)  # one of the 4! orders changes nothing
    slack = 4 * (probability * (1 - probability) / count) ** 0.5 + 0.015
    assert abs(hit.double().mean().item() - expected) < slack


def test_the_paper_s_probabilities_are_the_defaults() -> None:
    assert [getattr(Augmentations(), name) for name in NAMES] == [0.4, 0.25, 0.25, 0.25, 0.15]


def test_augmentations_are_applied_independently() -> None:
    """A segment that got one is neither more nor less likely to get another."""
    count = 4000
    x = torch.ones(count, 1, 64)
    y = augment(x, step_keys(2, 0, count), replace(OFF, cut_out=0.4, magnitude_warp=0.25))
    cut, warped = (y == 0).flatten(1).any(1), ((y != 0) & (y != 1)).flatten(1).any(1)
    assert abs((cut & warped).double().mean().item() - 0.4 * 0.25) < 0.025


def test_a_segment_s_augmentation_depends_on_its_key_alone() -> None:
    x = signal(6, 3, 640)
    keys = step_keys(5, 9, 6)
    config = Augmentations(*[0.5] * 5)
    whole = augment(x, keys, config)
    torch.testing.assert_close(torch.cat([augment(x[i : i + 1], keys[i : i + 1], config) for i in range(6)]), whole)
    assert changed(whole, augment(x, step_keys(5, 10, 6), config)).any()


def test_autocast_changes_nothing() -> None:
    x, keys, config = signal(6, 3, 640), step_keys(5, 9, 6), Augmentations(*[1.0] * 5)
    with torch.autocast("cpu", torch.bfloat16):
        under = augment(x, keys, config)
    assert torch.equal(under, augment(x, keys, config))


def test_cut_out_zeroes_one_window_of_all_channels() -> None:
    x = torch.ones(500, 3, 3840)
    y = cut_out(x, step_keys(0, 0, 500), max_share=0.25)
    assert torch.equal(y, y[:, :1].expand_as(y))
    length = (y[:, 0] == 0).sum(1)
    edges = (y[:, 0].diff(dim=1) != 0).sum(1)
    assert (edges <= 2).all()
    assert length.max() <= 960
    assert abs(length.double().mean() - 480) < 30


def test_magnitude_warp_is_a_smooth_gain_of_each_channel() -> None:
    gain = magnitude_warp(torch.ones(400, 2, 3840), step_keys(0, 0, 400), sd=0.2, smooth=SMOOTH)
    assert gain.diff(dim=2).abs().max() < 0.01
    assert abs(gain[:, :, ::768].std().item() - 0.2) < 0.02
    assert abs(gain.mean().item() - 1) < 0.02
    assert abs(torch.corrcoef(gain[:, :, 1920].T)[0, 1]) < 0.2


def test_gaussian_noise_is_white_and_of_the_given_size() -> None:
    noise = gaussian_noise(torch.zeros(20, 2, 3840), step_keys(0, 0, 20), sd=0.3)
    assert abs(noise.std().item() - 0.3) < 0.01
    assert abs((noise[..., 1:] * noise[..., :-1]).mean().item()) < 0.002


def test_channel_permute_reorders_whole_channels_evenly() -> None:
    x = torch.arange(3.0)[None, :, None].expand(3000, 3, 8)
    y = channel_permute(x, step_keys(0, 0, 3000))
    assert torch.equal(y.sort(dim=1).values, x)
    orders, counts = y[:, :, 0].unique(dim=0, return_counts=True)
    assert len(orders) == 6
    assert ((counts - 500).abs() < 100).all()


def test_time_warp_moves_the_inside_and_keeps_order_and_ends() -> None:
    ramp = torch.linspace(0, 1, 3840).expand(50, 2, 3840)
    y = time_warp(ramp, step_keys(0, 0, 50), sd=0.05, smooth=SMOOTH)
    assert (y.diff(dim=2) > 0).all()
    torch.testing.assert_close(y[:, :, [0, -1]], ramp[:, :, [0, -1]], atol=1e-4, rtol=0)
    assert torch.equal(y[:, 0], y[:, 1])
    shift_s = ((y - ramp) * 60).abs().amax(dim=(1, 2))
    assert 0.1 < shift_s.median() < 5
    torch.testing.assert_close(time_warp(ramp, step_keys(0, 0, 50), sd=0.0, smooth=SMOOTH), ramp, atol=1e-5, rtol=0)


def test_a_gpu_s_way_through_the_cascade_gives_the_same() -> None:
    """The whole batch at once, in fixed shapes, as one graph for all probabilities; against the chosen alone."""
    x, keys = torch.randn(64, 3, 3840), step_keys(5, 3, 64)
    graphs = []

    def counted(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    captured = torch.compile(augment_all, backend=counted, fullgraph=True, dynamic=False)
    for config in (Augmentations(), replace(OFF, gaussian_noise=1.0), OFF):
        expected = augment_selected(x, keys, config, SMOOTH)
        drawn = probabilities(config, torch.device("cpu"))
        for way in (augment_all, captured):
            torch.testing.assert_close(way(x, keys, drawn, config, SMOOTH), expected, rtol=1e-5, atol=1e-5)
    assert len(graphs) == 1
