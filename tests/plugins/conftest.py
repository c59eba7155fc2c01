"""What the tests of features and of metrics share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch_fidelity.feature_extractor_inceptionv3 as published


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """A file of random weights, made by a torch-fidelity network that was kept from downloading its own."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setattr(published, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(published.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        network = published.FeatureExtractorInceptionV3("random", ["2048"])
        for parameter in network.parameters():
            if parameter.ndim == 4:  # torch's own initial weights would shrink the signal to nothing
                torch.nn.init.kaiming_normal_(parameter)
        network.fc.weight.mul_(30)  # and give every class the same probability
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(network.state_dict(), path)
    return path
