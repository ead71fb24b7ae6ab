"""A hash of networks and of the data they were used on, for caches."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from torch import nn


def fingerprint(
    networks: Sequence[nn.Module], about: dict[str, Any], skip: Sequence[str] = ()
) -> str:
    """Return a hash of networks and of the data they were used on; caches serve these only.

    Args:
        skip: children of the networks that what is cached does not depend on.
    """
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for network in networks:
        for name, value in sorted(network.state_dict().items()):
            if name.partition(".")[0] in skip:
                continue
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
