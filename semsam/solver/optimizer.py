"""AdamW with a learning rate and a weight decay for each kind of parameter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from semsam.config import CfgNode

_NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)
_POSITION_TABLES = ("relative_position_bias_table", "absolute_pos_embed")


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.AdamW:
    """Build AdamW over the trainable parameters, one group for each (rate, weight decay).

    Scalars have groups of their own, since ranks that share a model have them whole.

    Raises:
        ValueError: if nothing is trainable.
    """
    settings = parameter_settings(cfg, model)
    if not settings:
        raise ValueError("the model has no trainable parameter; unfreeze a part of it")
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if name in settings:
            groups[*settings[name], not parameter.dim()].append(parameter)
    return torch.optim.AdamW(
        [{"params": p, "lr": lr, "weight_decay": decay} for (lr, decay, _), p in groups.items()],
        lr=cfg.SOLVER.BASE_LR,
        fused=True,
    )


def parameter_settings(cfg: CfgNode, model: nn.Module) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of every trainable parameter, by name.

    Parameters under ``backbone.`` learn at ``BASE_LR * BACKBONE_MULTIPLIER``. Those of
    normalisation layers decay by ``WEIGHT_DECAY_NORM``; those of ``nn.Embedding`` and tables of
    relative or absolute positions by ``WEIGHT_DECAY_EMBED``; biases by ``WEIGHT_DECAY_BIAS`` where
    that is not negative; scalars, such as the scale of cosines, do not decay; all others do by
    ``WEIGHT_DECAY``. ``LR_FACTORS`` set the rate of parameters by the beginning of their names. A
    parameter with several names has the settings of its first.
    """
    solver = cfg.SOLVER
    factors = [*solver.LR_FACTORS, ("backbone.", solver.BACKBONE_MULTIPLIER), ("", 1.0)]
    settings = {}
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    for prefix, module in model.named_modules():
        for local, parameter in module.named_parameters(recurse=False):
            name = f"{prefix}.{local}" if prefix else local
            if name not in trainable:
                continue
            lr = solver.BASE_LR * next(f for start, f in factors if name.startswith(start))
            if not parameter.dim():
                decay = 0.0
            elif isinstance(module, _NORMS):
                decay = solver.WEIGHT_DECAY_NORM
            elif isinstance(module, nn.Embedding) or local in _POSITION_TABLES:
                decay = solver.WEIGHT_DECAY_EMBED
            elif local == "bias" and solver.WEIGHT_DECAY_BIAS >= 0:
                decay = solver.WEIGHT_DECAY_BIAS
            else:
                decay = solver.WEIGHT_DECAY
            settings[name] = (lr, decay)
    return settings


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale all gradients together so that their joint L2 norm is at most ``max_norm``.

    Args:
        parameters: of the whole model.
        max_norm: 0 leaves the gradients as they are.

    Returns:
        Scalar: the norm before clipping.
    """
    learning = [p for p in parameters if p.grad is not None]
    # What ranks have whole and what they share cannot be in one list.
    shared = [p for p in learning if isinstance(p.grad, DTensor)]
    kinds = [shared, [p for p in learning if not isinstance(p.grad, DTensor)]]
    norms = [
        nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None])
        for kind in kinds
        if kind
    ]
    norms = [n.full_tensor() if isinstance(n, DTensor) else n for n in norms]
    norm = norms[0] if len(norms) == 1 else nn.utils.get_total_norm(norms)
    if max_norm > 0:
        for kind in kinds:
            nn.utils.clip_grads_with_norm_(kind, max_norm, norm)
    return norm
