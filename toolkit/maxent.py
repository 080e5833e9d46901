"""Placeholder."""

import math

import torch
from torch import Tensor


def importance_log_z(r: Tensor, log_mu: Tensor, alpha: float) -> Tensor:
    return torch.logsumexp(r / alpha - log_mu, 0) - math.log(len(r))


def guided_cost_loss(r_expert: Tensor, r: Tensor, log_mu: Tensor, alpha: float, temper: float) -> Tensor:
    log_weight = temper * (r / alpha - log_mu)
    return -temper * r_expert.mean() / alpha + torch.logsumexp(log_weight, 0) - math.log(len(r))


def shaped_reward(g: Tensor, h: Tensor, next_h: Tensor, discount: float, terminated: Tensor) -> Tensor:
    return g + discount * next_h * (~terminated) - h
