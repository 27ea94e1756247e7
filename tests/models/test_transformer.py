"""The Transformer encoder: the paper's sizes, patches, positions and attention."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from accelkd.models.transformer import (
    PATCH_SAMPLES,
    SIZES,
    TOKENS,
    Block,
    Encoder,
    TransformerShape,
    patches,
    sinusoidal_positions,
)

SMALL = TransformerShape(width=16, layers=2, heads=2, mlp=32)


@pytest.mark.parametrize(
    ("size", "paper_millions", "exact"),
    [
        ("XS", 0.8, 803_712),
        ("S", 1.2, 1_200_256),
        ("M", 3.3, 3_276_480),
        ("L", 4.8, 4_759_808),
        ("XL", 6.3, 6_339_328),
    ],
)
def test_sizes_have_the_parameters_of_table_7(size: str, paper_millions: float, exact: int) -> None:
    encoder = Encoder(channels=4, shape=SIZES[size])
    count = sum(parameter.numel() for parameter in encoder.parameters())
    assert count == exact
    assert round(count / 1e6, 1) == paper_millions


def test_a_patch_is_a_third_of_a_second_of_all_channels() -> None:
    x = torch.arange(2 * 3 * 3840, dtype=torch.float32).reshape(2, 3, 3840)
    cut = patches(x)
    assert cut.shape == (2, 192, 60)
    for token in (0, 7, 191):
        expected = torch.cat([x[1, channel, token * 20 : (token + 1) * 20] for channel in range(3)])
        assert torch.equal(cut[1, token], expected)
    with pytest.raises(ValueError, match="3840 samples per channel, not 1920"):
        patches(torch.zeros(1, 3, 1920))


def test_positions_are_sines_and_cosines() -> None:
    table = sinusoidal_positions(16)
    assert table.shape == (TOKENS, 16)
    for position, pair in ((0, 0), (5, 3), (191, 7)):
        angle = position / 10_000 ** (2 * pair / 16)
        assert table[position, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-4)
        assert table[position, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-4)


def test_block_is_pre_norm_attention_and_gelu() -> None:
    """Against a plain NumPy implementation in double precision."""
    torch.manual_seed(0)
    block = Block(SMALL)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(1, 5, 16)
    w = {name: parameter.detach().double().numpy() for name, parameter in block.named_parameters()}

    def linear(name: str, v: np.ndarray) -> np.ndarray:
        return v @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name: str, v: np.ndarray) -> np.ndarray:
        centred = v - v.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    tokens = x[0].double().numpy()
    packed = linear("query_key_value", norm("attention_norm", tokens))
    heads = []
    for head in range(2):
        query, key, value = (packed[:, 16 * i + 8 * head : 16 * i + 8 * (head + 1)] for i in range(3))
        score = query @ key.T / math.sqrt(8)
        weight = np.exp(score - score.max(1, keepdims=True))
        heads.append(weight / weight.sum(1, keepdims=True) @ value)
    tokens = tokens + linear("attention_out", np.concatenate(heads, axis=1))
    hidden = linear("mlp_in", norm("mlp_norm", tokens))
    gelu = 0.5 * hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    tokens = tokens + linear("mlp_out", gelu)

    np.testing.assert_allclose(block(x)[0].detach().numpy(), tokens, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_encoder_embeds_each_segment_on_its_own(channels: int) -> None:
    torch.manual_seed(1)
    encoder = Encoder(channels, SMALL).eval()
    x = torch.randn(3, channels, 3840)
    with torch.no_grad():
        together = encoder(x)
        alone = torch.cat([encoder(x[i : i + 1]) for i in range(3)])
    assert together.shape == (3, 16)
    torch.testing.assert_close(together, alone)
    assert encoder.tokenizer.in_features == channels * PATCH_SAMPLES


def test_position_belongs_to_the_token_and_not_to_its_place_in_the_list() -> None:
    """So a masked autoencoder may drop tokens and encode the kept ones in any order."""
    torch.manual_seed(2)
    encoder = Encoder(3, SMALL).eval()
    x = torch.randn(2, 3, 3840)
    order = torch.randperm(TOKENS)[:38]
    with torch.no_grad():
        tokens = encoder.tokenize(x)[:, order]
        torch.testing.assert_close(encoder.transformer(tokens.flip(1)), encoder.transformer(tokens).flip(1))
        # The same patches elsewhere are other tokens: time matters.
        assert not torch.allclose(encoder(x), encoder(x.roll(20 * 31, dims=2)), atol=1e-4)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="width 18 does not divide into 4 heads"):
        Encoder(3, TransformerShape(width=18, layers=1, heads=4, mlp=8))


def test_a_convolutional_stem_gives_the_same_tokens_of_the_same_width() -> None:
    torch.manual_seed(0)
    encoder = Encoder(3, replace(SMALL, stem="convolutional"))
    x = torch.randn(4, 3, 3840, requires_grad=True)
    tokens = encoder.tokenize(x)
    assert tokens.shape == (4, TOKENS, 16)
    assert encoder(x).shape == (4, 16)
    # A token sees its own third of a second and at most a few samples on either side
    (gradient,) = torch.autograd.grad(encoder.eval().tokenize(x)[0, 100].sum(), x)
    seen = gradient[0].abs().sum(dim=0).nonzero()[:, 0]
    assert 100 * PATCH_SAMPLES - 12 <= seen.min() < 100 * PATCH_SAMPLES
    assert 101 * PATCH_SAMPLES <= seen.max() < 101 * PATCH_SAMPLES + 12
    assert not gradient[1:].any()


def test_a_segment_of_another_length_is_refused_behind_a_stem_too() -> None:
    with pytest.raises(ValueError, match="samples per channel"):
        Encoder(3, replace(SMALL, stem="convolutional"))(torch.zeros(2, 3, 1920))
