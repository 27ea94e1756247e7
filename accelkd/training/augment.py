"""The stochastic augmentation cascade (section 3.1; Iwana and Uchida, 2021, name the individual transformations).

Each augmentation is applied to each segment with its own probability, which the paper gives. The strengths, which it
does not give, are ours (docs/training.md). Everything is a batched tensor operation on the device of the signals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from accelkd.training.randomness import bits, derive, normal, uniform

_KNOTS = 6  # of the smooth curves of magnitude and time warp


@dataclass(frozen=True)
class Augmentations:
    """Probability of each augmentation, and its strength. Probability 0 switches one off."""

    cut_out: float = 0.4
    magnitude_warp: float = 0.25
    gaussian_noise: float = 0.25
    channel_permute: float = 0.25
    time_warp: float = 0.15
    cut_out_share: float = 0.25  # longest window that is set to zero, as a share of the segment
    magnitude_warp_sd: float = 0.2  # standard deviation of the gain around 1
    gaussian_noise_sd: float = 0.2  # in units of the z-scored signal
    time_warp_sd: float = 0.05  # standard deviation of the logarithm of the local speed


def augment(x: Tensor, keys: Tensor, config: Augmentations) -> Tensor:
    """Return `x` `[batch, channels, samples]` with the cascade applied to each segment; `x` itself is unchanged.

    `keys` `[batch]` (int64, on the CPU), one per segment, determine everything that is random. Computed in float32 also
    under autocast: in bfloat16 a warp would be a staircase. The cascade is compiled if the trainer compiles.
    """
    smooth = spline(x.shape[-1], x.device)
    with torch.autocast(x.device.type, enabled=False):
        if x.device.type == "cpu":
            return augment_selected(x, keys, config, smooth)
        return _compiled()(
            x.float(), keys.to(x.device, non_blocking=True), probabilities(config, x.device), config, smooth
        )


def augment_selected(x: Tensor, keys: Tensor, config: Augmentations, smooth: Tensor) -> Tensor:
    """The cascade for a CPU, where each segment costs time: only the selected segments are computed."""
    selected = uniform(derive(keys, 0), _AUGMENTATIONS) < probabilities(config, x.device)
    x = x.clone()
    for number, transform in enumerate(_cascade(config, smooth)):
        rows = selected[:, number].nonzero()[:, 0]
        if len(rows):
            x[rows] = transform(x[rows], derive(keys[rows], number + 1))
    return x


def augment_all(x: Tensor, keys: Tensor, probabilities: Tensor, config: Augmentations, smooth: Tensor) -> Tensor:
    """The same for a GPU, where counts and launches cost time: every step has the same shapes.

    Every transformation is computed for every segment, and kept where it was selected. With the probabilities as a
    tensor, one compiled graph serves for all of them.
    """
    selected = uniform(derive(keys, 0), _AUGMENTATIONS) < probabilities
    for number, transform in enumerate(_cascade(config, smooth)):
        x = torch.where(selected[:, number, None, None], transform(x, derive(keys, number + 1)), x)
    return x


@lru_cache(maxsize=16)
def probabilities(config: Augmentations, device: torch.device) -> Tensor:
    """The probability of each augmentation, `[5]`, in the order of the cascade."""
    values = (config.cut_out, config.magnitude_warp, config.gaussian_noise, config.channel_permute, config.time_warp)
    return torch.tensor(values, dtype=torch.float32, device=device)


@cache
def _compiled() -> Callable[[Tensor, Tensor, Tensor, Augmentations, Tensor], Tensor]:
    """`augment_all`, compiled unless the trainer requests eager execution."""
    return torch.compile(augment_all, dynamic=False)


_AUGMENTATIONS = 5


def _cascade(config: Augmentations, smooth: Tensor) -> list[Callable[[Tensor, Tensor], Tensor]]:
    """The transformations in their order; `smooth` is `spline`."""
    return [
        lambda x, keys: cut_out(x, keys, config.cut_out_share),
        lambda x, keys: magnitude_warp(x, keys, config.magnitude_warp_sd, smooth),
        lambda x, keys: gaussian_noise(x, keys, config.gaussian_noise_sd),
        channel_permute,
        lambda x, keys: time_warp(x, keys, config.time_warp_sd, smooth),
    ]


def cut_out(x: Tensor, keys: Tensor, max_share: float) -> Tensor:
    """Set one window of all channels to zero; its length is uniform up to the share `max_share` of the segment."""
    samples = x.shape[-1]
    draw = uniform(keys, 2)
    length = draw[:, :1] * max_share * samples
    start = draw[:, 1:] * (samples - length)
    instant = torch.arange(samples, device=x.device)
    in_window = (instant >= start) & (instant < start + length)
    return x.masked_fill(in_window[:, None], 0.0)


def magnitude_warp(x: Tensor, keys: Tensor, sd: float, smooth: Tensor) -> Tensor:
    """Multiply each channel by its own smooth gain around 1; `smooth` is `spline`."""
    batch, channels, _ = x.shape
    knots = normal(keys, channels * _KNOTS).view(batch, channels, _KNOTS)
    return x * (1 + sd * knots @ smooth)


def gaussian_noise(x: Tensor, keys: Tensor, sd: float) -> Tensor:
    """Add white noise."""
    return x + sd * normal(keys, x.shape[1] * x.shape[2]).view(x.shape)


def channel_permute(x: Tensor, keys: Tensor) -> Tensor:
    """Put the channels in a random order."""
    order = bits(keys, x.shape[1]).argsort(dim=1)
    return x.gather(1, order[:, :, None].expand_as(x))


def time_warp(x: Tensor, keys: Tensor, sd: float, smooth: Tensor) -> Tensor:
    """Resample all channels at one smoothly varying speed, scaled so that first and last sample stay in place."""
    batch, channels, samples = x.shape
    speed = torch.exp(sd * normal(keys, _KNOTS) @ smooth).double()
    instant = speed.cumsum(dim=1) - speed[:, :1]
    instant = instant * ((samples - 1) / instant[:, -1:])
    before = instant.long().clamp(0, samples - 2)
    share = (instant - before).to(x.dtype)[:, None]
    index = before[:, None].expand(batch, channels, samples)
    return x.gather(2, index).lerp(x.gather(2, index + 1), share)


@lru_cache(maxsize=4)
def spline(samples: int, device: torch.device) -> Tensor:
    """Basis `[knots, samples]`: values at evenly spaced knots times this are the cubic spline through them."""
    basis = CubicSpline(np.linspace(0, 1, _KNOTS), np.eye(_KNOTS))(np.linspace(0, 1, samples))
    return torch.from_numpy(basis.T.astype(np.float32)).to(device)
