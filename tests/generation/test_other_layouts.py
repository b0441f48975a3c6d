"""The parts hold what is no plain sequence: scales of a field, and chunks of frames.

A toy VAR (tokens of a coarse map, then of a finer one, all of a scale at once) and a
toy Ca2-VDM (chunks of frames denoised against a cache of clean ones) run end to end
through layout, masks, backbone and cache. The methods themselves come with the fields.
"""

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sciseq.generation.parts.backbone import TokenTransformer
from sciseq.generation.parts.cache import KeyValueCache
from sciseq.generation.parts.layout import CLEAN, NOISY, Layout
from sciseq.generation.parts.masks import block_causal, full, two_copy
from sciseq.nn import build_network

# --- A toy VAR: one coarse token, then two by two, then four by four ------------------

SIDES = (1, 2, 4)
STARTS = [0, 1, 5, 21]  # first positions of the scales, and the end


def scales_layout(first, last):
    position = torch.arange(STARTS[first], STARTS[last]).unsqueeze(0)
    sizes = torch.tensor([side * side for side in SIDES[first:last]])
    group = torch.tensor(STARTS[first:last]).repeat_interleave(sizes).unsqueeze(0)
    return Layout.at(position, group=group)


class ToyVAR(nn.Module):
    """Each scale is told what the one before it looks like, at its own places."""

    def __init__(self, n_tokens=2):
        super().__init__()
        self.backbone = TokenTransformer(n_tokens, 21, 16, 32, 2, 2, 0.0)
        self.told = nn.Linear(1, 16)

    def step_input(self, tokens, first, last):
        """What stands at the places of scales: the scale before, made larger."""
        rows = []
        for scale in range(first, last):
            side = SIDES[scale]
            if scale == 0:
                rows.append(tokens.new_zeros(len(tokens), 1, dtype=torch.float64))
                continue
            before = tokens[:, STARTS[scale - 1] : STARTS[scale]]
            known = before.view(-1, 1, SIDES[scale - 1], SIDES[scale - 1]).double()
            rows.append(F.interpolate(known, (side, side)).flatten(1))
        features = torch.cat(rows, dim=1).unsqueeze(2)
        layout = scales_layout(first, last)
        hidden = torch.full((len(tokens), layout.n_rows), self.backbone.mask)
        return self.backbone.embed(hidden, layout) + self.told(features), layout

    def forward(self, tokens, rule=block_causal):
        x, layout = self.step_input(tokens, 0, len(SIDES))
        return self.backbone.scores(self.backbone(x, layout, rule))

    def log_prob(self, tokens):
        logs = self(tokens).log_softmax(-1).gather(2, tokens.unsqueeze(2))
        return logs.squeeze(2).sum(1)

    def sample(self, n, generator):
        cache, tokens = KeyValueCache(0, 21), torch.zeros(n, 21, dtype=torch.int64)
        seen = []
        for scale in range(len(SIDES)):
            x, layout = self.step_input(tokens, scale, scale + 1)
            scores = self.backbone.scores(self.backbone(x, layout, block_causal, cache))
            cache.store()
            noise = torch.rand(scores.shape, generator=generator, dtype=scores.dtype)
            drawn = (scores - torch.log(-torch.log(noise))).argmax(-1)
            tokens[:, STARTS[scale] : STARTS[scale + 1]] = drawn
            seen.append(scores)
        return tokens, torch.cat(seen, dim=1)


def made(factory, seed=0):
    return build_network(factory, torch.Generator().manual_seed(seed)).double()


def test_scales_cached_are_scales_in_parallel():
    model = made(ToyVAR)
    with torch.no_grad():
        tokens, scores = model.sample(3, torch.Generator().manual_seed(1))
        torch.testing.assert_close(scores, model(tokens), rtol=0, atol=1e-12)
        # The rule matters: with the wrong one the two differ.
        assert (scores - model(tokens, full)).abs().max() > 1e-6


def test_probabilities_of_two_scales_sum_to_one(monkeypatch):
    monkeypatch.setattr(f"{__name__}.SIDES", SIDES[:2])
    model = made(ToyVAR)
    every = torch.tensor(list(itertools.product((0, 1), repeat=5)))
    with torch.no_grad():
        total = model.log_prob(every).exp().sum()
    assert total.item() == pytest.approx(1.0, abs=1e-12)


def test_no_scale_knows_itself_or_later_ones():
    model = made(ToyVAR)
    tokens = torch.zeros(1, 21, dtype=torch.int64)
    with torch.no_grad():
        before = model(tokens)
        for scale in range(3):
            changed = tokens.clone()
            changed[:, STARTS[scale] : STARTS[scale + 1]] = 1
            difference = (model(changed) - before).abs().amax(dim=2)[0]
            assert difference[: STARTS[scale + 1]].max() == 0
            assert scale == 2 or difference[STARTS[scale + 1] :].min() > 0


def test_the_toy_learns_that_scales_resemble_each_other():
    generator = torch.Generator().manual_seed(2)

    def maps(n):
        coarse = torch.rand(n, 1, generator=generator) < 0.5
        rows = [coarse]
        for side in SIDES[1:]:
            flip = torch.rand(n, side * side, generator=generator) < 0.1
            rows.append(coarse.expand(-1, side * side) ^ flip)
        return torch.cat(rows, dim=1).long()

    model = made(ToyVAR)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = -model.log_prob(maps(64)).mean() / 21
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found = -model.log_prob(maps(512)).mean().item() / 21
        sampled, _ = model.sample(512, torch.Generator().manual_seed(3))
    # The truth: log 2 for the first token, the entropy of a flip for 20 others.
    truth = (0.6931 + 20 * 0.3251) / 21
    assert truth - 0.01 < found < truth + 0.03
    agreement = (sampled[:, 1:] == sampled[:, :1]).double().mean().item()
    assert agreement == pytest.approx(0.9, abs=0.03)


# --- A toy Ca2-VDM: chunks of frames, denoised against clean ones ---------------------

CHUNK, N_STEPS = 2, 3


class ToyFrames(nn.Module):
    """Frames of three numbers; every frame is told its own level of noise."""

    def __init__(self):
        super().__init__()
        self.backbone = TokenTransformer(1, 12, 16, 32, 2, 2, 0.0)
        self.frame, self.level = nn.Linear(3, 16), nn.Linear(1, 16)
        self.out = nn.Linear(16, 3)

    def embed(self, frames, level, layout):
        places = self.backbone.places[layout.position + 1]
        told = self.level(torch.full_like(frames[..., :1], level))
        return self.frame(frames) + told + places

    def chunk(self, start, copy):
        position = torch.arange(start, start + CHUNK).unsqueeze(0)
        return Layout.at(position, group=torch.full_like(position, start), copy=copy)

    def denoised(self, noisy, level, start, rule, cache=None, before=None):
        """One step towards the frames: from a cache, or from all clean frames anew."""
        layout = self.chunk(start, NOISY)
        x = self.embed(noisy, level, layout)
        if before is not None and before.shape[1]:
            its = Layout.of(before.shape[1], block=CHUNK)
            x = torch.cat([self.embed(before, 0.0, its), x], dim=1)
            layout = its.followed_by(layout)
        states = self.backbone(x, layout, rule, cache)[:, -CHUNK:]
        return noisy + (self.out(states) - noisy) / N_STEPS

    def rollout(self, noise, *, is_cached, rule):
        cache, frames = KeyValueCache(0, 12), noise[:, :0]
        for number in range(3):
            start = number * CHUNK
            chunk = noise[:, start : start + CHUNK]
            for step in range(N_STEPS):
                level = 1 - step / N_STEPS
                chunk = self.denoised(
                    chunk, level, start, rule,
                    cache if is_cached else None,
                    None if is_cached else frames,
                )  # fmt: skip
            if is_cached:  # the finished chunk is written clean, causally
                layout = self.chunk(start, CLEAN)
                self.backbone(self.embed(chunk, 0.0, layout), layout, rule, cache)
                cache.store()
            frames = torch.cat([frames, chunk], dim=1)
        return frames


def test_one_cache_serves_all_levels_of_noise():
    model = made(ToyFrames)
    noise = torch.randn(2, 6, 3, dtype=torch.float64,
                        generator=torch.Generator().manual_seed(0))  # fmt: skip
    rule = two_copy(clean="causal")
    with torch.no_grad():
        cached = model.rollout(noise, is_cached=True, rule=rule)
        anew = model.rollout(noise, is_cached=False, rule=rule)
        torch.testing.assert_close(cached, anew, rtol=0, atol=1e-12)
        # Were clean frames to read the noisy chunk, nothing could be cached.
        cached = model.rollout(noise, is_cached=True, rule=full)
        anew = model.rollout(noise, is_cached=False, rule=full)
    assert (cached - anew).abs().max() > 1e-6


def test_denoising_never_changes_what_is_stored():
    model, rule = made(ToyFrames), two_copy(clean="causal")
    frames = torch.randn(1, CHUNK, 3, dtype=torch.float64,
                         generator=torch.Generator().manual_seed(1))  # fmt: skip
    cache = KeyValueCache(0, 12)
    with torch.no_grad():
        layout = model.chunk(0, CLEAN)
        model.backbone(model.embed(frames, 0.0, layout), layout, rule, cache)
        cache.store()
        first = model.denoised(frames, 1.0, CHUNK, rule, cache)
        model.denoised(2 * frames, 0.5, CHUNK, rule, cache)
        again = model.denoised(frames, 1.0, CHUNK, rule, cache)
    assert torch.equal(first, again)


def test_writing_frames_one_by_one_is_writing_a_chunk():
    model, rule = made(ToyFrames), two_copy(clean="causal")
    frames = torch.randn(1, CHUNK, 3, dtype=torch.float64,
                         generator=torch.Generator().manual_seed(2))  # fmt: skip
    found = []
    with torch.no_grad():
        for parts in ([slice(0, 2)], [slice(0, 1), slice(1, 2)]):
            cache, layout = KeyValueCache(0, 12), model.chunk(0, CLEAN)
            for part in parts:
                some = layout.map(lambda one, part=part: one[:, part])
                x = model.embed(frames[:, part], 0.0, some)
                model.backbone(x, some, rule, cache)
                cache.store()
            found.append(model.denoised(frames, 1.0, CHUNK, rule, cache))
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)


def test_a_layout_is_never_changed_in_place():
    layout = Layout.of(4, block=2)
    other = replace(layout, copy=torch.zeros_like(layout.copy))
    assert layout.copy.tolist() == [[CLEAN] * 4]
    assert other.copy.tolist() == [[NOISY] * 4]
