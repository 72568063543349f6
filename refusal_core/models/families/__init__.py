"""The table of families. A new family is one entry in one of the files here."""

from __future__ import annotations

from refusal_core.models.families.cross_attention import CROSS_ATTENTION
from refusal_core.models.families.family import Family
from refusal_core.models.families.joint_attention import JOINT_ATTENTION
from refusal_core.models.families.left_out import LEFT_OUT
from refusal_core.models.families.sound import SOUND
from refusal_core.models.families.unets import UNETS
from refusal_core.models.families.wan import WAN

FAMILIES: tuple[Family, ...] = (*UNETS, *WAN, *CROSS_ATTENTION, *JOINT_ATTENTION, *SOUND)

__all__ = ["FAMILIES", "LEFT_OUT"]
