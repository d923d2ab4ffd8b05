"""The adversarial term of GMODiff's Eq. 9, between tone-mapped results and truth.

It owns the discriminator and both its losses. It must not know the refiner, data or optimisers. The document follows
img2img-turbo without naming the network; here it judges overlapping patches (Isola et al. 2017) with the hinge loss.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.func import functional_call


class Discriminator(nn.Module):
    """Scores patches of about 34 pixels of an image (B, 3, H, W): (B, 1, H / 4, W / 4), high where it looks true."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.GroupNorm(8, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 3, padding=1),
            nn.GroupNorm(8, 4 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * width, 1, 3, padding=1),
        )

    def forward(self, codes: Tensor) -> Tensor:
        """Scores of display-coded images in [0, 1]."""
        return self.layers(2 * codes - 1)


def deceive(discriminator: Discriminator, made: Tensor) -> Tensor:
    """What the maker lowers: minus the mean score of its images, with the discriminator held as it is."""
    held = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
    scores: Tensor = functional_call(discriminator, held, (made,))
    return -scores.mean()


def discern(discriminator: Discriminator, made: Tensor, truth: Tensor) -> Tensor:
    """What the discriminator lowers: the hinge loss over true and made images; no gradient reaches the images."""
    true_scores, made_scores = discriminator(truth.detach()), discriminator(made.detach())
    return (1 - true_scores).relu().mean() + (1 + made_scores).relu().mean()
