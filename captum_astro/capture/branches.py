"""The branches of a stage, by the tokens that they change."""

from __future__ import annotations

import torch

from captum_astro.capture.records import AttentionRecord, FeedForwardRecord
from captum_astro.functional.token_map import TokenMap
from captum_astro.layouts.errors import UnsupportedModelError

Branch = AttentionRecord | FeedForwardRecord
Branches = tuple[Branch, ...]


def changed(branch: Branch) -> TokenMap | None:
    """The windows in which what a branch adds is known; None if it is known for all tokens in order."""
    return None if isinstance(branch, AttentionRecord) and branch.output is not None else branch.outputs


def by_outputs(branches: Branches) -> list[Branches]:
    """The branches that change the same tokens, together.

    Raises:
        UnsupportedModelError: If one changes some of the tokens that another changes, but not the same ones.
    """
    groups: list[Branches] = []
    for branch in branches:
        for number, group in enumerate(groups):
            if _same(changed(group[0]), changed(branch)):
                groups[number] = (*group, branch)
                break
            if _overlap(changed(group[0]), changed(branch)):
                raise UnsupportedModelError(
                    f"{branch.branch.name} changes some of the tokens that {group[0].branch.name} changes, but not the "
                    f"same ones. Describe them as two stages, one after the other."
                )
        else:
            groups.append((branch,))
    return groups


def _same(one: TokenMap | None, other: TokenMap | None) -> bool:
    return one is other or (one is not None and other is not None and torch.equal(one.index, other.index))


def _overlap(one: TokenMap | None, other: TokenMap | None) -> bool:
    return one is None or other is None or bool(torch.isin(one.index[one.index >= 0], other.index).any())
