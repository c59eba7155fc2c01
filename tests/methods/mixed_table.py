"""Tables with continuous and discrete columns, encoded and drawn as for CTGAN (Xu et al. 2019, arXiv:1907.00503)."""

import csv

import numpy as np
import torch
from attrs import field, frozen
from attrs.validators import ge
from sklearn.mixture import BayesianGaussianMixture
from torch import Tensor
from torch.nn.functional import one_hot

import ganlab


@frozen
class MixedTable:
    """Rows of a .csv file with a header: its continuous columns, each as 1 + modes numbers, then the discrete ones.

    Mode-specific normalisation (section 4.2): a continuous value becomes its distance from a mode of a mixture of
    normal distributions, in 4 standard deviations, and which mode, one-hot. A discrete value becomes its category,
    one-hot; each discrete column is also a condition of its name, multiplied by how often it is to be chosen.

    Training by sampling (section 4.3): rows are drawn so that each discrete column is chosen equally often, and its
    categories by the logarithm of their frequencies.

    file: a relative path is relative to $GANLAB_DATA.
    discrete: the names of the discrete columns; all others must be numbers.
    modes: how many each continuous column has.
    test_every: of so many rows one is in the test split.
    """

    file: str = ganlab.location()
    discrete: tuple[str, ...] = ()
    modes: int = field(default=10, validator=ge(1))
    test_every: int = field(default=5, validator=ge(2))

    def build(self, places: ganlab.Places, split: str) -> ganlab.ImageDataset:
        ganlab.check_split("mixed_table", split)
        path = places.data / self.file
        try:
            with path.open(newline="") as opened:
                rows = list(csv.DictReader(opened))
            names = [*dict.fromkeys(self.discrete), *(name for name in rows[0] if name not in self.discrete)]
            columns = {name: [row[name] for row in rows] for name in names}
            numbers = {name: np.array(columns[name], float) for name in names if name not in self.discrete}
        except (OSError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ganlab.ComponentError(f"{path}: {ganlab.one_line(repr(error))}") from error
        test = torch.arange(len(rows)) % self.test_every == 0
        mine = test if split == "test" else ~test
        continuous = [self.encoded(column, ~test.numpy()) for column in numbers.values()]
        discrete = {name: self.categories(columns[name]) for name in self.discrete}
        chosen = {name: self.chosen(part[mine]) for name, part in discrete.items()}
        encoded = torch.cat([*continuous, *discrete.values()], 1)[mine].float()
        weights = torch.cat([*chosen.values()], 1).sum(1) if chosen else None
        return ganlab.ImageDataset(encoded, path.stem, split, chosen or None, weights=weights)

    def encoded(self, column: np.ndarray, train: np.ndarray) -> Tensor:
        """A continuous column as (N, 1 + modes), with the modes of the training split."""
        mixture = BayesianGaussianMixture(
            n_components=self.modes, weight_concentration_prior=1e-3, max_iter=500, random_state=0
        ).fit(column[train, None])
        modes = mixture.predict(column[:, None])
        means, deviations = mixture.means_[modes, 0], np.sqrt(mixture.covariances_[modes, 0, 0])
        values = torch.from_numpy(((column - means) / (4 * deviations)).clip(-1, 1))
        return torch.cat([values[:, None], one_hot(torch.from_numpy(modes), self.modes)], 1)

    def categories(self, column: list[str]) -> Tensor:
        known = sorted(set(column))
        return one_hot(torch.tensor([known.index(value) for value in column]), len(known)).float()

    def chosen(self, categories: Tensor) -> Tensor:
        """Categories (N, K), one-hot, each times how often a row of it is drawn with this column as the chosen one."""
        counts = categories.sum(0)
        shares = (1 + counts).log() / (1 + counts).log().sum()
        return categories * (shares / counts.clamp(min=1))


@ganlab.hookimpl
def register_datasets(register: ganlab.Register[ganlab.DatasetConfig]) -> None:
    register("mixed_table", MixedTable)
