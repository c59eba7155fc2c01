"""A data set of signals, as a plugin for tests: tones, with what a mel spectrogram would be as their condition."""

from __future__ import annotations

import torch
from attrs import frozen

import ganlab


@frozen
class Tones:
    """Sine waves, float32 (1, T), each with its frequency as a band of a spectrogram (bands, T / hop), or no condition.

    count: how many.
    length: samples in each.
    hop: samples in a frame of the spectrogram; 0 for no condition.
    """

    count: int = 64
    length: int = 64
    hop: int = 0

    def build(self, places: ganlab.Places, split: str) -> ganlab.Dataset:
        ganlab.check_split("tones", split)
        generator = torch.Generator().manual_seed(int(split == "test"))
        bands = torch.randint(4, (self.count,), generator=generator)
        phases = torch.rand(self.count, 1, generator=generator)
        time = torch.arange(self.length) / 16
        signals = 0.8 * (2 * torch.pi * (time * (bands[:, None] + 1) + phases)).sin()
        condition = None
        if self.hop:
            band = (bands[:, None] == torch.arange(4)).float()
            condition = band[:, :, None].repeat(1, 1, self.length // self.hop)
        return ganlab.ImageDataset(signals[:, None], "tones", split, condition)


@ganlab.hookimpl
def register_datasets(register: ganlab.Register[ganlab.DatasetConfig]) -> None:
    register("tones", Tones)
