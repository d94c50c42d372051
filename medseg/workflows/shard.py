"""A share of a batch: several processes, on several machines, each take every N-th case."""

import hashlib
import re
from dataclasses import dataclass

from medseg.errors import UsageError


@dataclass(frozen=True)
class Shard:
    """One of several shares.

    Attributes:
        number: Which, counted from 1.
        shards: How many there are.
    """

    number: int = 1
    shards: int = 1

    def holds(self, source: str) -> bool:
        """Say whether a case belongs to this share; it depends on the case alone.

        Args:
            source: What identifies where the case came from.

        Returns:
            Whether it does: true for exactly one of the shares.
        """
        digest = hashlib.sha256(source.encode(errors="surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.shards == self.number - 1

    @property
    def manifest(self) -> str:
        """Name of the manifest that this share writes."""
        if self.shards == 1:
            return "manifest.jsonl"
        return f"manifest.{self.number}-of-{self.shards}.jsonl"


WHOLE = Shard()
"""All of it."""

MANIFESTS = "manifest*.jsonl"
"""The manifests of all shares in an output folder."""


def parse_shard(text: str) -> Shard:
    """Read a share as it is typed.

    Args:
        text: `I/N`, I from 1 to N.

    Returns:
        The share.

    Raises:
        UsageError: If it is nothing like that.

    Examples:
        >>> parse_shard("2/8")
        Shard(number=2, shards=8)
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        msg = f"shard must be I/N with I from 1 to N, such as 2/8, got {text!r}."
        raise UsageError(msg)
    return Shard(int(match[1]), int(match[2]))
