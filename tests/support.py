"""What several tests share: where the repository is, and a loss in a file of its own."""

from pathlib import Path

REPOSITORY = Path(__file__).parent.parent

HINGE = """
from attrs import frozen
from torch.nn.functional import relu
from ganlab import hookimpl

@frozen
class Hinge:
    margin: float = 1.0
    def discriminator(self, real, fake): return relu(self.margin - real).mean() + relu(self.margin + fake).mean()
    def generator(self, real, fake): return -fake.mean()

@hookimpl
def register_losses(register): register("hinge", Hinge)
"""
