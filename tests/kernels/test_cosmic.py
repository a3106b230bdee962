"""Cosmic rays found in simulated darks, against those injected."""

from __future__ import annotations

import numpy as np

from campaign.camera import model as cameras
from kernels.camera import geometry
from kernels.isr.cosmic import CosmicConfig, cosmic_rays
from kernels.simulation import simulate, truth
from kernels.simulation.rates import Rates

SEED, N, SECONDS, SCALE = 3, 20, 30.0, 16
RATES = Rates(cosmic_rays=12.0)


def test_hits_are_masked_and_hardly_anything_else() -> None:
    """20 darks of 30 s: >= 99 % of the pixels at 10 sigma, <= 0.05 % of the clean ones."""
    detector = geometry.camera(cameras.load("LSSTComCam").scaled(SCALE).plain([4])).detectors[4]
    model = truth.make(SEED, detector, [], RATES)
    shots = [
        {"exposure": 2024120600100 + n, "observation_type": "dark", "physical_filter": None, "exposure_time": SECONDS,
         "dark_time": SECONDS} for n in range(N)
    ]  # fmt: skip
    frames = [simulate.frame(SEED, model, SCALE, shot, RATES) for shot in shots]
    rays = [truth.cosmic_rays(SEED, s["exposure"], detector, SCALE, SECONDS, RATES) for s in shots]
    shape, config = detector.size[::-1], CosmicConfig()
    charge = np.zeros((N, *shape), np.float32)
    for image, hits in zip(charge, rays, strict=True):
        image[hits.y, hits.x] = hits.charge
    found, bright, clean = 0, 0, []
    for k, a in enumerate(detector.amplifiers):
        assert a.serial_overscan is not None
        raw = np.array([frame[k] for frame in frames], np.float64)
        level = np.median(raw[:, :, a.serial_overscan.x0 + 3 :], axis=2, keepdims=True)
        signal = np.array([truth.oriented((r - o)[a.data.slices] * a.gain, a) for r, o in zip(raw, level, strict=True)])
        middle = np.median(signal, axis=0)
        sigma = np.sqrt(np.maximum(middle, 0) + a.read_noise**2).astype(np.float32)
        for n in range(N):
            flags = cosmic_rays((signal[n] - middle).astype(np.float32), sigma, config)
            hit = charge[n][a.target.slices]
            found += int((flags & (hit > 10 * sigma)).sum())
            bright += int((hit > 10 * sigma).sum())
            near = np.zeros_like(flags)
            for y, x in np.argwhere(hit > 0):  # pixels masked around a hit are intended
                near[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4] = True
            clean.append(float(flags[~near].mean()))
    assert bright > 1000
    assert found >= 0.99 * bright
    assert np.mean(clean) <= 5e-4
