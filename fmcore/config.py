"""Settings: read once from the environment, then frozen. Nothing else in FM Desk reads the environment."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Profile:
    """The constants behind the one dial. max_tokens: longest text a model reads; batch: training batch size; masking_steps: training
    steps of the masked language model; sequence_width, sequence_window: size of the sequence model, and how many latest items it reads;
    long_...: the same where training may take its time; agent_steps: steps of an agent in the simulator, with one seed; pretrain_size,
    pretrain_minutes: the model that is pretrained from scratch (training/pretrain.py's SIZES), and for how long."""

    batch: int
    encode_batch: int
    max_tokens: int
    epochs: int
    random_features: int
    bootstrap_resamples: int
    masking_steps: int
    sequence_width: int
    sequence_window: int
    long_sequence_width: int
    long_sequence_window: int
    agent_steps: int
    pretrain_size: str
    pretrain_minutes: float


# fmt: off
PROFILES = {
    "tiny": Profile(
        batch=16, encode_batch=32, max_tokens=32, epochs=1, random_features=256, bootstrap_resamples=200, masking_steps=20,
        sequence_width=16, sequence_window=20, long_sequence_width=16, long_sequence_window=20, agent_steps=256,
        pretrain_size="tiny", pretrain_minutes=0.5,
    ),
    "base": Profile(
        batch=32, encode_batch=64, max_tokens=64, epochs=3, random_features=4000, bootstrap_resamples=1000, masking_steps=400,
        sequence_width=64, sequence_window=50, long_sequence_width=128, long_sequence_window=200, agent_steps=16_000,
        pretrain_size="tiny", pretrain_minutes=15.0,
    ),
    "gpu": Profile(
        batch=64, encode_batch=256, max_tokens=128, epochs=5, random_features=4000, bootstrap_resamples=1000, masking_steps=4000,
        sequence_width=128, sequence_window=200, long_sequence_width=128, long_sequence_window=200, agent_steps=40_000,
        pretrain_size="small", pretrain_minutes=15.0,
    ),
}
# fmt: on


class Settings(BaseSettings):
    """Every setting of FM Desk, each an environment variable with the prefix FM_."""

    model_config = SettingsConfigDict(env_prefix="FM_", frozen=True, extra="ignore")

    home: Path = Field(ROOT / ".fm", description="Folder for the database, models, runs, logs and backups.")
    data_dir: Path | None = Field(None, description="Folder with public data sets, one sub-folder each, in the publishers' own formats.")
    profile: Literal["auto", "tiny", "base", "gpu"] = Field(
        "auto", description="The one dial: auto picks gpu when CUDA is seen, else base."
    )
    base_model: str = Field("minilm", description="Foundation model: minilm (the bundled package), a Hugging Face hub id, or a folder.")
    threads: int = Field(0, ge=0, description="CPU threads a training child may use; 0 means one less than the machine has.")
    bootstrap: bool = Field(True, description="Train a first model on the demo data when the desk starts with none.")
    allow_private_targets: bool = Field(False, description="Let notifications go to addresses that are not on the open internet.")
    tensorboard_dir: Path | None = Field(None, description="Copy the curves of heavy runs into this folder as TensorBoard event files.")
    mlflow_uri: str = Field("", description="Copy them to MLflow: http(s)://host, sqlite:///file, or a folder.")
    wandb_mode: Literal["off", "offline", "online"] = Field("off", description="Copy them to Weights & Biases: into a folder, or online.")
    wandb_dir: Path | None = Field(None, description="Folder of the offline copies for Weights & Biases; wandb in the home folder.")
    wandb_host: str = Field("", description="Server of Weights & Biases, needed to be online.")
    secret_api_token: SecretStr | None = Field(None, description="Token every API request must bear; needed beyond this machine.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="How much the log says.")

    def training_threads(self) -> int:
        """CPU threads for a training child: one core is left to the pages where there is more than one."""
        return self.threads or max(1, (os.cpu_count() or 2) - 1)

    def limits(self) -> Profile:
        """The constants of the chosen profile. "auto" asks torch for CUDA, so it imports torch: not for the server."""
        name = self.profile
        if name == "auto":
            import torch

            name = "gpu" if torch.cuda.is_available() else "base"
        return PROFILES[name]


@functools.lru_cache(maxsize=1)
def settings() -> Settings:
    """The process's settings. Raises pydantic.ValidationError with the variable's name when one is malformed."""
    return Settings()


QUIET_CLIENTS = {
    "DO_NOT_TRACK": "true",  # else they report their use to their makers
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # else they wait minutes for a server that is away
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""What the clients of mirrors are told where nobody said otherwise."""


def child_environment(**extra: str) -> dict[str, str]:
    """The environment a run's child process gets: the server's own, less every secret of ours."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FM_SECRET")}
    return {**QUIET_CLIENTS, **kept, **extra}
