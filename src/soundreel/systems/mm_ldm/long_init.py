"""Start of the phase for long video: from a generator of single windows, or a model that has
the phase."""

from torch import Tensor

from soundreel.checkpoints.store import load_component, load_model_index
from soundreel.config_io import ConfigError
from soundreel.systems.mm_ldm.folder import LONG_GENERATOR
from soundreel.systems.mm_ldm.generator import Generator, GeneratorConfig
from soundreel.systems.mm_ldm.history_encoder import LongGenerator, LongGeneratorConfig
from soundreel.training.loop import TrainConfig
from soundreel.training.run import Run

INNER = "generator."


def of_single_windows(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the generator's weights of a model; one for long video holds them among others."""
    inner = {key.removeprefix(INNER): v for key, v in state.items() if key.startswith(INNER)}
    return inner or state


def long_generator(run: Run, config: LongGeneratorConfig, train: TrainConfig) -> LongGenerator:
    """Return the network that the phase trains, with the weights of the generator before it.

    The rest is that of the model that the run starts from, if it has the phase, else new.

    Raises:
        ConfigError: an adapter is asked for, but the model has not learned to go on; or the model
            is of another architecture.
        CheckpointError: weights are damaged.
    """
    component, init = run.component("generator"), run.init
    is_taken = load_model_index(component).components["network"] == LONG_GENERATOR
    if train.lora.rank and not is_taken:
        raise ConfigError(
            "long.train.lora: an adapter belongs to a model that goes on from windows already; "
            "name one with --init and train its stage long alone, or leave the adapter out"
        )
    goes_on = init is not None and init.kind("generator") == LONG_GENERATOR
    network = run.seeded(
        lambda: LongGenerator(config), train, component="generator" if goes_on else ""
    )
    if not is_taken:
        trained, _ = load_component(component, "network", Generator, GeneratorConfig)
        network.generator.load_state_dict(trained.state_dict())
    return network
