"""Which directions of a gradient are kept. Matrices come with their shorter side first: (m, n), m <= n.

All bases come from the gradient or from a seed, so that every process of a group finds the same one.
"""

from __future__ import annotations

from random import Random
from typing import Protocol

import torch
from torch import Tensor

EXTRA = 8  # directions that a cold start tries beyond the rank


class Projection(Protocol):
    """A map from gradients to fewer numbers, and back."""

    stored: bool  # the basis lies in the state; else a seed tells it

    def fit(self, grad: Tensor, old: Tensor | None, rank: int, draw: torch.Generator) -> Tensor:
        """A basis for this gradient (m, n), which is not all zeros; ``old`` is the one before, if it is stored."""
        ...

    def down(self, grad: Tensor, basis: Tensor) -> Tensor:
        """(m, n) to (r, n)."""
        ...

    def up(self, low: Tensor, basis: Tensor, into: Tensor) -> Tensor:
        """(r, n) to (m, n), written over what is there."""
        ...

    def basis_bytes(self, rows: int, rank: int, width: int) -> int:
        """What the stored basis takes."""
        ...


class Basis:
    """A matrix P (m, r): down is P^T G, up is P R."""

    stored = True

    def down(self, grad: Tensor, basis: Tensor) -> Tensor:
        """P^T G."""
        return basis.T @ grad

    def up(self, low: Tensor, basis: Tensor, into: Tensor) -> Tensor:
        """P R."""
        return torch.mm(basis, low, out=into)

    def basis_bytes(self, rows: int, rank: int, width: int) -> int:
        """(m, r)."""
        return width * rows * rank if self.stored else 0


class SVD(Basis):
    """The first r left singular vectors: exact, and slow."""

    def fit(self, grad: Tensor, old: Tensor | None, rank: int, draw: torch.Generator) -> Tensor:  # noqa: ARG002
        """Of the gradient."""
        return _signed(torch.linalg.svd(grad, full_matrices=False)[0][:, :rank], old)


class Eigh(Basis):
    """The same from the eigenvectors of G G^T: faster, and less exact for the small ones."""

    def fit(self, grad: Tensor, old: Tensor | None, rank: int, draw: torch.Generator) -> Tensor:  # noqa: ARG002
        """Of the gradient."""
        return _signed(_leading(_even(grad))[:, :rank], old)


class Randomised(Basis):
    """Subspace iteration (Halko et al. 2011, https://arxiv.org/abs/0909.4061) from the basis before: one pass over the
    gradient, G (G^T P), and a QR. The first time it starts from random directions and takes three passes.
    """

    def fit(self, grad: Tensor, old: Tensor | None, rank: int, draw: torch.Generator) -> Tensor:
        """Of the gradient; a warm start keeps the order and the signs of the old directions as far as they are left."""
        grad = _even(grad)
        if old is not None:
            q, r = torch.linalg.qr(grad @ (grad.T @ old))
            return q * torch.where(r.diagonal() < 0, -1.0, 1.0).to(q.dtype)
        m, n = grad.shape
        q = grad @ torch.randn(n, min(rank + EXTRA, m), generator=draw).to(grad)
        for _ in range(2):
            q = torch.linalg.qr(grad @ (grad.T @ torch.linalg.qr(q)[0]))[0]
        return _signed((q @ _leading(q.T @ grad))[:, :rank], None)


class Gaussian(Basis):
    """Gaussian directions of a seed, N(0, 1/r), made anew at every step and kept nowhere: P P^T is the identity on
    average, but no projection.
    """

    stored = False

    def fit(self, grad: Tensor, old: Tensor | None, rank: int, draw: torch.Generator) -> Tensor:  # noqa: ARG002
        """Of the seed, not the gradient."""
        return torch.randn(grad.shape[0], rank, generator=draw).div_(rank**0.5).to(grad)


class Columns:
    """Coordinates: the r rows of G that are largest, by their indices, in order."""

    stored = True

    def fit(self, grad: Tensor, old: Tensor | None, rank: int, draw: torch.Generator) -> Tensor:  # noqa: ARG002
        """(r,) int32."""
        return torch.linalg.vector_norm(_even(grad), dim=1).topk(rank).indices.sort().values.int()

    def down(self, grad: Tensor, basis: Tensor) -> Tensor:
        """These rows."""
        return grad.index_select(0, basis)

    def up(self, low: Tensor, basis: Tensor, into: Tensor) -> Tensor:
        """Zeros elsewhere."""
        return into.zero_().index_copy_(0, basis.long(), low)

    def basis_bytes(self, rows: int, rank: int, width: int) -> int:  # noqa: ARG002
        """Four bytes an index."""
        return 4 * rank


def drawing(*key: object, device: torch.device | str = "cpu") -> torch.Generator:
    """Random numbers that belong to a seed, a parameter's place and a time, whatever else was drawn before."""
    return torch.Generator(device).manual_seed(Random(repr(key)).getrandbits(63))


def _even(grad: Tensor) -> Tensor:
    """The gradient at a size whose squares are neither 0 nor infinite."""
    return grad / grad.abs().amax()


def _leading(grad: Tensor) -> Tensor:
    """All left singular vectors, the largest first."""
    return torch.linalg.eigh(grad @ grad.T)[1].flip(1)


def _signed(basis: Tensor, old: Tensor | None) -> Tensor:
    """Each direction the way the old one pointed, or with its largest part positive; a copy that owns its memory."""
    along = (basis * old).sum(0) if old is not None else basis.gather(0, basis.abs().argmax(0, keepdim=True))[0]
    return basis * torch.where(along < 0, -1.0, 1.0).to(basis.dtype)


PROJECTIONS: dict[str, Projection | None] = {
    "identity": None,  # the gradient itself, of any shape
    "svd": SVD(),
    "eigh": Eigh(),
    "rsvd": Randomised(),
    "random": Gaussian(),
    "columns": Columns(),
}
