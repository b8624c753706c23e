"""What `convship.fuse` did: one entry for each max pool of the model."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FusedChain", "LeftChain", "Report"]


@dataclass(frozen=True)
class FusedChain:
    """Layers that became one ConvPool2d.

    Attributes:
        name: The ConvPool2d's name, which was the convolution's.
        layers: The layers it does the work of, in the order in which they were called. A function
            is told as ``relu() in block``, after the module whose forward called it.
    """

    name: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class LeftChain:
    """Layers that stay as they are.

    Attributes:
        layers: The max pool and what was recognised in front of it.
        reason: Why they stay.
    """

    layers: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Report:
    """What was fused, what was left and why.

    ``print(report)`` shows a table.

    Attributes:
        fused: Chains that became one layer.
        left: Max pools that did not, and modules that could not be looked into.
        rewritten: Modules whose forward was written anew, because it called functions, or modules
            in more than one place, that are part of a fused layer now.
    """

    fused: tuple[FusedChain, ...]
    left: tuple[LeftChain, ...]
    rewritten: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows = [("fused", " + ".join(chain.layers), f"-> {chain.name}") for chain in self.fused]
        rows += [("left", " + ".join(chain.layers), chain.reason) for chain in self.left]
        rows += [("rewritten", name, "its forward") for name in self.rewritten]
        widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
        table = [f"{kind:{widths[0]}}  {layers:{widths[1]}}  {note}" for kind, layers, note in rows]
        return "\n".join([f"fused {len(self.fused)}, left {len(self.left)}", *table])
