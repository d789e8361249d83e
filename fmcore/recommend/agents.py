"""The agents of the contest: how each is trained in the simulator's visits and how all are judged on the same ones.

Deep agents are stable-baselines3's, on one thread of the CPU. An agent ends as a function from an observation to a group; no weights are
kept: a contest keeps what the agents did. Never touches the store.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fmcore.recommend import bandits
from fmcore.recommend.simulator import Session, environment

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from torch import nn

Act = Callable[[np.ndarray], int]
"""From an observation to the candidate to show."""
Hear = Callable[[int, float], None]
"""Called with the steps so far and a finished visit's return; may raise to stop."""
GAMMA = 0.9
"""Discount a step of the deep agents: a visit lasts about ten steps."""


@dataclass(frozen=True)
class Agent:
    """An agent of the contest. learns: whether it is trained, and so differs between seeds. by: which model ranks inside its groups."""

    name: str
    title: str
    summary: str
    learns: bool
    by: str = "model"


AGENTS = {
    agent.name: agent
    for agent in (
        Agent("random", "Random", "A candidate drawn evenly: what an agent does before it has learnt anything.", False),
        Agent("popularity", "Popularity", "The most popular item that was not met yet.", False, by="popularity"),
        Agent("greedy", "Greedy", "The model's best item that was not met yet, asked again after likes; no thought of boredom.", False),
        Agent("sasrec", "Greedy SASRec", "The sequence model's best item not met yet, where another model serves.", False, by="sasrec"),
        Agent("linucb", "LinUCB", "A linear model of the next like, tried where it may be too low.", True),
        Agent("thompson", "Thompson sampling", "A linear model of the next like, tried as its doubt has it.", True),
        Agent("dqn", "DQN", "A network that foretells the likes still to come of each group.", True),
        Agent("ppo", "PPO", "A network that draws the group, moved towards what brought more likes than expected.", True),
    )
}
BASELINES = ("random", "popularity", "greedy", "sasrec")


def train(name: str, session: Session, *, steps: int, seed: int, hear: Hear) -> Act:
    """Train an agent for so many steps of the session; the same seed gives the same agent. One without learning is ready at once."""
    n_groups = session.world.n_groups
    if name == "random":
        rng = np.random.default_rng([seed, 3])
        return lambda observation: int(rng.integers(n_groups))
    if name in BASELINES:
        return lambda observation: 0  # the candidates come best first
    if name in ("linucb", "thompson"):
        kind = bandits.LinUCB if name == "linucb" else bandits.LinearThompson
        return _bandit(kind(n_groups, seed=seed), session, steps=steps, seed=seed, hear=hear)
    return _deep(name, session, steps=steps, seed=seed, hear=hear)


def play(act: Act, session: Session, visits: Sequence[int]) -> np.ndarray:
    """float64 (len(visits),): the likes of each visit; the same numbers are the same people with the same luck for every agent."""
    returns = np.zeros(len(visits))
    for place, visit in enumerate(visits):
        observation, over = session.reset(int(visit)), False
        while not over:
            reward, left, cut = session.show(act(observation))
            returns[place] += reward
            over = left or cut
            if not over:
                observation = session.observation()
    return returns


def _bandit(bandit: bandits.LinearBandit, session: Session, *, steps: int, seed: int, hear: Hear) -> Act:
    rng, done = np.random.default_rng([seed, 5]), 0
    while done < steps:
        observation, over, total = session.reset(int(rng.integers(2**31))), False, 0.0
        while not over:
            arm = bandit.explore(observation)
            reward, left, cut = session.show(arm)
            bandit.learn(observation, arm, reward)
            done, total, over = done + 1, total + reward, left or cut
            if not over:
                observation = session.observation()
        hear(done, total)
    return bandit.act


def _deep(name: str, session: Session, *, steps: int, seed: int, hear: Hear) -> Act:
    """DQN (Mnih et al. 2015) or PPO (Schulman et al. 2017, arXiv:1707.06347)."""
    from stable_baselines3.common.callbacks import BaseCallback

    class Heard(BaseCallback):
        """Adds up the rewards of a visit and tells the return; what `hear` raises ends the training."""

        total = 0.0

        def _on_step(self) -> bool:
            self.total += float(self.locals["rewards"][0])
            if self.locals["dones"][0]:
                hear(self.num_timesteps, self.total)
                self.total = 0.0
            return True

    with _one_thread():
        model = _algorithm(name, session, steps=steps, seed=seed)
        model.learn(total_timesteps=steps, callback=Heard())
    if name == "dqn":
        return _acting(model.policy.q_net.features_extractor, model.policy.q_net.q_net[0])
    return _acting(model.policy.pi_features_extractor, model.policy.action_net)


def _acting(network: nn.Module, head: nn.Module) -> Act:
    """What a trained network does, its surest action, in NumPy: ten times as fast for one observation as by way of PyTorch."""
    (w1, b1), (w2, b2), (w3, b3), (w4, b4) = (
        (layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy())
        for layer in (network.own[0], network.told[0], network.told[2], head)
    )
    order = network.order.numpy()[:, None].copy()
    n = len(order)

    def act(observation: np.ndarray) -> int:
        each = np.hstack([observation[: 4 * n].reshape(4, n).T, np.broadcast_to(observation[4 * n :], (n, 2)), order])
        own = np.maximum(each @ w1 + b1, 0)
        told = np.maximum(np.hstack([own, np.broadcast_to(own.mean(axis=0), own.shape)]) @ w2 + b2, 0) @ w3 + b3
        return int((told[:, 0] @ w4 + b4).argmax())

    return act


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Networks this small are slower on several threads, and the other cores are the pages'."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _algorithm(name: str, session: Session, *, steps: int, seed: int) -> BaseAlgorithm:
    from stable_baselines3 import DQN, PPO

    shared = {"policy": "MlpPolicy", "env": environment(session), "seed": seed, "device": "cpu", "gamma": GAMMA, "verbose": 0}
    if name == "dqn":
        model = DQN(
            **shared, policy_kwargs={"features_extractor_class": _candidate_network(), "net_arch": []}, learning_rate=1e-3,
            buffer_size=max(steps, 100), learning_starts=min(1000, steps // 4), batch_size=128, train_freq=4, gradient_steps=1,
            target_update_interval=500, exploration_fraction=0.3, exploration_final_eps=0.05,
        )  # fmt: skip
        heads = (model.policy.q_net.q_net[0], model.policy.q_net_target.q_net[0])
    else:
        network = {"features_extractor_class": _candidate_network(), "net_arch": {"pi": [], "vf": [64]}, "share_features_extractor": False}
        model = PPO(
            **shared, policy_kwargs=network, learning_rate=1e-3, n_steps=min(1024, max(steps // 2, 128) // 128 * 128), batch_size=128,
            n_epochs=8, gae_lambda=0.9, ent_coef=0.005,
        )  # fmt: skip
        heads = (model.policy.action_net,)
    _straight_through(heads)
    return model


def _candidate_network() -> type:
    """A features extractor for stable-baselines3: one number a candidate by the same small network, from what is seen of the candidate,
    of the moment and of all candidates on average; so what is learnt of one place in the order is known of all."""
    import torch
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from torch import nn

    class Candidates(BaseFeaturesExtractor):
        def __init__(self, observation_space) -> None:
            n = (observation_space.shape[0] - 2) // 4
            super().__init__(observation_space, features_dim=n)
            self.n, width = n, 32
            self.own = nn.Sequential(nn.Linear(7, width), nn.ReLU())
            self.told = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 1))
            self.register_buffer("order", torch.arange(n, dtype=torch.float32) / n)

        def forward(self, observations):
            rows = len(observations)
            each = observations[:, : 4 * self.n].reshape(rows, 4, self.n).transpose(1, 2)
            now = observations[:, None, 4 * self.n :].expand(rows, self.n, 2)
            own = self.own(torch.cat([each, now, self.order[None, :, None].expand(rows, self.n, 1)], dim=2))
            return self.told(torch.cat([own, own.mean(dim=1, keepdim=True).expand_as(own)], dim=2)).squeeze(2)

    return Candidates


def _straight_through(heads: Sequence) -> None:
    """The policies' last layers begin as the identity: a candidate's number is its value, or its logit."""
    import torch

    with torch.no_grad():
        for head in heads:
            head.weight.copy_(torch.eye(len(head.weight)))
            head.bias.zero_()
