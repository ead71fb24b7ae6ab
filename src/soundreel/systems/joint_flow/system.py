"""joint_flow as a system: what the registry, the command line and the page know of it."""

import torch

from soundreel.checkpoints.store import ModelFolder
from soundreel.protocols import System
from soundreel.systems.joint_flow import presets
from soundreel.systems.joint_flow.config import SYSTEM as NAME
from soundreel.systems.joint_flow.config import JointFlowConfig, JointFlowOptions
from soundreel.systems.joint_flow.pipeline import COMPONENTS, JointFlowPipeline
from soundreel.systems.joint_flow.stages import stages_of, train_joint_flow


def _load(folder: ModelFolder, device: torch.device) -> JointFlowPipeline:
    return JointFlowPipeline.load(folder).to(device)


SYSTEM = System(
    name=NAME,
    config_type=JointFlowConfig,
    presets={
        "joint-flow-scenes": presets.scenes,
        "joint-flow-small": presets.small,
        "joint-flow-medium": presets.medium,
        "joint-flow-large": presets.large,
        "joint-flow-tiny": presets.tiny,
    },
    stages=stages_of,
    train=train_joint_flow,
    load=_load,
    options=JointFlowOptions,
    components=frozenset(COMPONENTS.values()),
)
