"""Masked autoencoding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from accelkd.models.transformer import TOKENS, Encoder, TransformerShape, patches
from accelkd.training.masked_autoencoding import MaskedAutoencoder
from accelkd.training.randomness import step_keys

SHAPE = TransformerShape(width=16, layers=1, heads=2, mlp=32)


@pytest.fixture
def autoencoder() -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(Encoder(2, SHAPE), SHAPE, kept=38, modality="ppg")


def test_every_segment_keeps_its_own_38_of_192_tokens(autoencoder: MaskedAutoencoder) -> None:
    kept, dropped = autoencoder.split_tokens(step_keys(0, 0, 400))
    assert kept.shape == (400, 38)
    assert dropped.shape == (400, 154)
    assert torch.equal(torch.cat([kept, dropped], dim=1).sort(dim=1).values, torch.arange(TOKENS).expand(400, -1))
    assert len(kept.sort(dim=1).values.unique(dim=0)) == 400
    share = torch.zeros(TOKENS).index_add(0, kept.flatten(), torch.ones(kept.numel())) / 400
    assert (share - 38 / 192).abs().max() < 0.08  # every position is as likely


def test_mask_token_starts_uniform_between_0_and_1(autoencoder: MaskedAutoencoder) -> None:
    token = autoencoder.mask_token
    assert token.shape == (16,)
    assert token.requires_grad
    assert token.min() >= 0
    assert token.max() < 1
    assert token.std() > 0.15


def test_loss_is_the_squared_error_over_dropped_patches_alone(autoencoder: MaskedAutoencoder) -> None:
    x = torch.randn(5, 2, 3840)
    keys = step_keys(1, 0, 5)
    for parameter in autoencoder.projection.parameters():
        torch.nn.init.zeros_(parameter)
    _, dropped = autoencoder.split_tokens(keys)
    target = patches(x).double().numpy()
    squares = [target[i, j] ** 2 for i in range(5) for j in dropped[i].tolist()]
    assert autoencoder({"ppg": x}, keys).item() == pytest.approx(np.mean(squares), rel=1e-5)


def test_reconstruction_never_sees_a_dropped_patch(autoencoder: MaskedAutoencoder) -> None:
    """With a reconstruction R that does not change, loss(c) + loss(−c) = 2 × (loss(0) + c²) for dropped patches = c."""
    keys = step_keys(2, 0, 3)
    _, dropped = autoencoder.split_tokens(keys)
    base = torch.randn(3, TOKENS, 2, 20)

    def loss(value: float) -> float:
        tokens = base.clone()
        for i in range(3):
            tokens[i, dropped[i]] = value
        return autoencoder({"ppg": tokens.transpose(1, 2).reshape(3, 2, 3840)}, keys).item()

    assert loss(2.0) + loss(-2.0) == pytest.approx(2 * (loss(0.0) + 4.0), rel=1e-5)


def test_positions_reach_the_decoder(autoencoder: MaskedAutoencoder) -> None:
    """Without them, all dropped tokens of a segment would be reconstructed alike."""
    seen: list[torch.Tensor] = []
    autoencoder.projection.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach()))
    autoencoder({"ppg": torch.randn(1, 2, 3840)}, step_keys(3, 0, 1))
    assert seen[0].shape == (1, 154, 40)
    assert seen[0].std(dim=1).min() > 1e-3


@pytest.mark.parametrize("kept", [0, 192])
def test_kept_tokens_must_leave_something_to_do(kept: int) -> None:
    with pytest.raises(ValueError, match=f"between 1 and 191, not {kept}"):
        MaskedAutoencoder(Encoder(2, SHAPE), SHAPE, kept, "ppg")


def test_decoder_has_the_encoder_s_width() -> None:
    with pytest.raises(ValueError, match="decoder width 8 differs from encoder width 16"):
        MaskedAutoencoder(Encoder(2, SHAPE), TransformerShape(width=8, layers=1, heads=2, mlp=8), 38, "ppg")


def test_a_convolutional_stem_is_refused() -> None:
    with pytest.raises(ValueError, match="leaks dropped patches"):
        MaskedAutoencoder(Encoder(2, replace(SHAPE, stem="convolutional")), SHAPE, kept=38, modality="ppg")
