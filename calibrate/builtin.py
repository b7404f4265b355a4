"""What int8 is calibrated on where the user gives nothing: real enough to work, and no more.

The texts were written for this. Images, recordings and videos are made of noise, edges and tones
whose spectra fall off as those of natural ones do. None of them is a golden input of
``edgessl.parity``, which would make parity a measurement on what was fitted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl.calibrate import data
from edgessl.rows.media import NAMES
from edgessl.spec import Task

# What is made at most: more of the same kind would teach nothing and take memory and time.
MOST = {"image": 150, "audio": 100, "video": 40}
FEW = 100  # items of one's own that are enough
# Measured (docs/benchmarks.md): mean cosine to fp32 of the built-in set and of 300 real items.
_COSTS = {
    "text": " (all-MiniLM-L6-v2 on reviews: cosine 0.9993 in place of 0.9991)",
    "image": " (ViT-MAE on CIFAR-10: lowest cosine 0.9999 in place of 0.998)",
}
_RATE = 16000  # Hz, of recordings; another rate only moves their pitch
_FRAMES = 16

Floats = npt.NDArray[np.float64]


def beside(chosen: data.Calibration, task: Task, samples: int, seed: int) -> data.Calibration:
    """*chosen*, with the built-in items beside it where it has few: fewer than ``FEW`` leave ranges
    that other inputs pass. Texts and images only: for these it was measured to help."""
    if len(chosen.items) >= min(FEW, samples) or task not in ("text", "image"):
        return chosen
    own = builtin(task, samples, seed)
    made = data.of([*chosen.items, *own.items], f"{chosen.source} + built-in", chosen.available)
    note = (
        f"few calibration {NAMES[task]} ({len(chosen.items)}): {len(own.items)} of edgessl's "
        f"own were taken besides. From {FEW} on yours are taken alone"
    )
    return replace(
        chosen,
        items=made.items,
        source=made.source,
        sha256=made.sha256,
        notes=(*chosen.notes, note),
    )


def builtin(task: Task, samples: int, seed: int) -> data.Calibration:
    """At most *samples* items of what edgessl carries or makes, the same for the same *seed*.

    Texts: drawn from some 200 that come with edgessl. Images: uint8 ``(H, W, 3)`` of several
    sizes and proportions. Recordings: int16 ``(samples,)`` of 0.5 to 6 s at 16 kHz. Videos: uint8
    ``(16, H, W, 3)``. What is made may differ in a last bit between versions of numpy.
    """
    cost = _COSTS.get(task, "")
    made = "texts" if task == "text" else f"synthetic {NAMES[task]}"
    note = (
        f"no --calibration was given: the ranges of int8 come from edgessl's own {made}, which "
        f"know nothing of your data. A few hundred real inputs of your own are better{cost}: "
        "--calibration DATA"
    )
    if task == "text":
        file = resources.files("edgessl.calibrate").joinpath("builtin.txt")
        with resources.as_file(file) as path:
            chosen = data.load(path, task, samples, seed)
    else:
        make = _MAKERS[task]
        items: list[Any] = [
            make(np.random.default_rng([1000, abs(seed), int(seed < 0), number]))
            for number in range(min(samples, MOST[task]))
        ]
        chosen = data.of(items, "built-in", available=MOST[task])
    return replace(chosen, source="built-in", notes=(note,))


def _image(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    height, width = (int(side) for side in rng.integers(5, 9, 2) * 32)
    return _pixels(_scene(rng, height, width)(0.0), rng)


def _video(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    height, width = (int(side) for side in rng.integers(4, 6, 2) * 32)
    frame = _scene(rng, height, width)
    return np.stack([_pixels(frame(time), rng) for time in np.linspace(0, 1, _FRAMES)])


def _pixels(scene: Floats, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    noisy = scene + rng.normal(0, 0.008, scene.shape)
    pixels: npt.NDArray[np.uint8] = (noisy.clip(0, 1) * 255).round().astype(np.uint8)
    return pixels


def _scene(rng: np.random.Generator, height: int, width: int) -> Callable[[float], Floats]:
    """A lit background with things in front of it, at a time of 0 to 1: ``(H, W, 3)``, 0 to 1.

    Background and things have textures whose amplitude falls as 1 / frequency; the things have
    sharp or blurred outlines, hide one another and move. Contrast, brightness and colourfulness
    are those of some photograph: grey, dark, burnt out or plain ones are among them.
    """
    pink = [_pink(rng, height, width) for _ in range(2)]
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    colourful = rng.uniform(0, 0.2) * (rng.random() > 0.1)
    direction = rng.uniform(0, 2 * np.pi)
    shade = rng.uniform(0, 0.5) * (x * np.cos(direction) + y * np.sin(direction))
    back = _surface(rng, pink, colourful) + shade[..., None]
    things = []
    for _ in range(int(rng.integers(3, 15))):
        centre, drift = rng.uniform(-0.1, 1.1, 2), rng.normal(0, 0.25, 2)
        size, turn, ratio = 0.02 * 20 ** rng.random(), rng.uniform(0, np.pi), rng.uniform(0.2, 1)
        edge, boxy = rng.choice([0.003, 0.01, 0.08]), rng.random() < 0.5
        things.append(
            (centre, drift, size, turn, ratio, edge, boxy, _surface(rng, pink, colourful))
        )
    gain, level = rng.uniform(0.8, 1.8), rng.uniform(0.35, 0.6)

    def at(time: float) -> Floats:
        picture = back.copy()
        for centre, drift, size, turn, ratio, edge, boxy, surface in things:
            right, down = x - centre[0] - drift[0] * time, y - centre[1] - drift[1] * time
            u = right * np.cos(turn) + down * np.sin(turn)
            v = (down * np.cos(turn) - right * np.sin(turn)) / ratio
            distance = np.maximum(abs(u), abs(v)) if boxy else np.hypot(u, v)
            cover = 1 / (1 + np.exp(((distance - size) / edge).clip(-30, 30)))
            picture += cover[..., None] * (surface - picture)
        return np.asarray((picture - 0.5) * gain + level)

    return at


def _surface(rng: np.random.Generator, pink: list[Floats], colourful: float) -> Floats:
    """A texture around a colour: ``(H, W, 3)``."""
    grey, tint = (np.roll(noise, rng.integers(0, noise.shape), (0, 1)) for noise in pink)
    colour = rng.uniform(0.1, 0.9) + colourful * rng.normal(0, 1, 3)
    rough = rng.choice([0.0, 0.02, 0.05, 0.12])
    surface: Floats = (
        colour + rough * grey[..., None] + tint[..., None] * rng.normal(0, 0.5, 3) * colourful
    )
    return surface


def _pink(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Noise whose amplitude falls as 1 / frequency, of mean 0 and deviation 1: ``(H, W)``."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(
        np.fft.rfft2(rng.standard_normal((height, width))) / frequency, s=(height, width)
    )
    pink: Floats = noise / noise.std()
    return pink


def _recording(rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """Something like syllables: harmonics of a gliding pitch, hisses and pauses, over a hum."""
    wave = np.zeros(int(rng.uniform(0.5, 6) * _RATE))
    at = 0
    while at < len(wave):
        length = min(int(rng.uniform(0.05, 0.35) * _RATE), len(wave) - at)
        t = np.arange(length) / _RATE
        swell = np.sin(np.pi * np.arange(length) / length) ** rng.uniform(0.3, 1.5)
        kind = rng.random()
        if kind < 0.6:  # voiced: pulses at the pitch, coloured by three resonances
            pitch = rng.uniform(80, 320) * (1 + rng.uniform(-0.3, 0.3) * t)
            phase = 2 * np.pi * np.cumsum(pitch) / _RATE
            formants = rng.uniform([250, 800, 2200], [900, 2300, 3500])
            orders = np.arange(1, max(2, int(4000 / pitch.mean())))
            heights = np.exp(-(((orders[:, None] * pitch.mean() - formants) / 180) ** 2)).sum(1)
            part = ((heights + 0.05)[:, None] / orders[:, None] ** 0.5) * np.sin(
                orders[:, None] * phase
            )
            wave[at : at + length] = swell * part.sum(0)
        elif kind < 0.8:  # a hiss
            hiss = np.diff(rng.standard_normal(length + 1)) * rng.uniform(0.05, 0.4)
            wave[at : at + length] = swell * hiss
        at += length  # else a pause
    level = 10 ** rng.uniform(-1.5, -0.1)  # from quiet to nearly full scale
    spectrum = np.fft.rfft(rng.standard_normal(len(wave)))
    hum = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 1), n=len(wave))
    wave = wave / max(abs(wave).max(), 1e-9) + rng.uniform(0.001, 0.03) * hum / hum.std()
    return np.asarray((wave / abs(wave).max() * level * 32767).round(), np.int16)


_MAKERS: dict[str, Callable[[np.random.Generator], npt.NDArray[Any]]] = {
    "image": _image,
    "audio": _recording,
    "video": _video,
}
