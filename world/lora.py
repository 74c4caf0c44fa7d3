"""Low-rank updates (Hu et al. 2021) as PEFT stores them, added to the weights that they belong to."""

import re
from collections.abc import Mapping

from torch import Tensor


def merge_lora(base: dict[str, Tensor], lora: Mapping[str, Tensor], alpha: float | None = None) -> list[str]:
    """Adds PEFT's low-rank updates to `base` in place; returns the keys that fit nothing.

    A weight becomes W + alpha / rank * B A; `alpha` is the rank where it is not given, as in LongLive.
    """
    unknown = []
    for key in sorted(lora):
        match = re.fullmatch(r"(.+)\.lora_A(?:\.default)?\.weight", key)
        if not match:
            if ".lora_B" not in key:
                unknown.append(key)
            continue
        up = key.replace(".lora_A", ".lora_B")
        target = f"{match[1]}.weight"
        down = lora[key].float()
        if target not in base or up not in lora:
            unknown.append(key)
            continue
        delta = lora[up].float() @ down * ((alpha or down.shape[0]) / down.shape[0])
        if delta.shape != base[target].shape:
            unknown.append(key)
            continue
        base[target] = base[target].float() + delta
    unknown += [k for k in lora if ".lora_B" in k and k.replace(".lora_B", ".lora_A") not in lora]
    return unknown
