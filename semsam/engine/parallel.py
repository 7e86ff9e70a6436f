"""How the processes of a run share a model: copies (DDP), or a part of every weight each (FSDP)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from semsam.config import CfgNode
from semsam.utils import comm

#: Parts that are large and called by their ``forward`` alone, wherever they are in a model.
_LARGE_PARTS = ("backbone", "language_model")

logger = logging.getLogger(__name__)


def is_sharded(cfg: CfgNode) -> bool:
    """Whether SOLVER.PARALLEL asks for FSDP.

    Raises:
        ValueError: if it is neither "ddp" nor "fsdp", or something else does not go with it.
    """
    kind = cfg.SOLVER.PARALLEL
    if kind not in ("ddp", "fsdp"):
        raise ValueError(f"SOLVER.PARALLEL is ddp or fsdp, not '{kind}'")
    if kind == "fsdp" and cfg.MODEL.EMBEDDING_CACHE:
        raise ValueError(
            "SOLVER.PARALLEL fsdp gathers the encoder's weights on all ranks at once, while with "
            "MODEL.EMBEDDING_CACHE ranks need them at different times: use ddp, or no cache"
        )
    return kind == "fsdp"


def parallelize(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """Let ranks share the work on a model as SOLVER.PARALLEL says; one rank gets it as it is.

    Build the optimizer after it: FSDP puts other parameters in the place of the model's.

    Raises:
        ValueError: as ``is_sharded``.
    """
    if is_sharded(cfg):
        return shard_model(model, cfg.SOLVER.FIND_UNUSED_PARAMETERS)
    return create_ddp_model(model, cfg.SOLVER.FIND_UNUSED_PARAMETERS)


def create_ddp_model(model: nn.Module, find_unused_parameters: bool = False) -> nn.Module:
    """Wrap a model so that ranks share gradients; with one process, the model itself.

    Args:
        model: on its device.
        find_unused_parameters: for models of which a step may leave some unused.
    """
    if comm.get_world_size() == 1:
        return model
    device = next(model.parameters()).device
    device_ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(
        model, device_ids=device_ids, find_unused_parameters=find_unused_parameters
    )


def shard_model(model: nn.Module, find_unused_parameters: bool = False) -> nn.Module:
    """Give each rank a part of every weight, in place (FSDP2); with one process, do nothing.

    A block of a backbone or of a language model (an item of a list of modules of one class) has
    its weights gathered while it runs; all the rest is gathered for the length of a step. Scalars
    stay whole on each rank: see ``average_scalar_gradients``.

    Args:
        model: the same on all ranks, on its device.
        find_unused_parameters: for models of which a step may leave some unused on a rank; their
            gradient is zero then.
    """
    if comm.get_world_size() == 1:
        return model
    mesh = init_device_mesh(next(model.parameters()).device.type, (comm.get_world_size(),))
    scalars = {p for p in model.parameters() if not p.dim()}
    blocks = find_blocks(model)
    for block in blocks:
        fully_shard(block, mesh=mesh, ignored_params=scalars)
    fully_shard(model, mesh=mesh, ignored_params=scalars)
    if find_unused_parameters:
        model.set_reduce_scatter_unused_params(True)
    logger.info(
        "%d blocks and the rest of the model are shared by %d ranks", len(blocks), mesh.size()
    )
    return model


def find_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of large parts: items of the outermost lists of several modules of one class.

    A list of stages is none: what a stage consists of is also called from outside.
    """
    parts = [m for name, m in model.named_modules() if name.rpartition(".")[2] in _LARGE_PARTS]
    return list(dict.fromkeys(block for part in parts for block in _blocks_below(part)))


def _blocks_below(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        items = list(child) if isinstance(child, nn.ModuleList | nn.Sequential) else []
        alike = len(items) > 1 and len({type(item) for item in items}) == 1
        if alike and not any(hasattr(item, "blocks") for item in items):
            yield from items
        else:
            yield from _blocks_below(child)


def average_scalar_gradients(model: nn.Module) -> None:
    """After the backward passes of a step: mean over ranks of the gradients that FSDP leaves out.

    Every rank has to call it; it does nothing to a model that is not sharded.
    """
    if not isinstance(model, FSDPModule):
        return
    for parameter in model.parameters():
        if parameter.requires_grad and not isinstance(parameter, DTensor):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
            parameter.grad /= comm.get_world_size()


def whole_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with whole tensors, on the CPU of the first rank where ranks share the model.

    Every rank has to call it; the others get an empty one then.
    """
    state = model.state_dict()
    if not isinstance(model, FSDPModule):
        return state
    whole = {}
    for name, value in state.items():
        value = value.full_tensor() if isinstance(value, DTensor) else value
        if comm.is_main_process():
            whole[name] = value.cpu()
    return whole


@contextlib.contextmanager
def gathered(model: nn.Module) -> Iterator[nn.Module]:
    """Let every rank have all weights for the time of a ``with`` block, to use as it likes.

    Within it, ranks may call the model and its parts differently often, without gradients. Buffers
    become those of the first rank. A model that is not sharded stays as it is.
    """
    shards = [m for m in model.modules() if isinstance(m, FSDPModule)]
    if not shards:
        yield model
        return
    for buffer in model.buffers():
        dist.broadcast(buffer, src=0)
    for shard in shards:
        shard.unshard()
        shard.set_reshard_after_forward(False, recurse=False)
    try:
        yield model
    finally:
        for shard in shards:
            # The root's weights stay gathered from its forward to its backward pass.
            shard.set_reshard_after_forward(shard is not model, recurse=False)
            shard.reshard()
