"""A hash of networks and of the data they were used on, for caches."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from torch import nn


def fingerprint(networks: Sequence[nn.Module], about: dict[str, Any]) -> str:
    """Return a hash of networks and of the data they were used on; caches serve these only."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for network in networks:
        for name, value in sorted(network.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
