"""Freeze and unfreeze modules of a network."""

from __future__ import annotations

from torch import nn

from attnscope.errors import InputError


def train_only(model: nn.Module, modules: tuple[str, ...]) -> None:
    """Let only some modules of a network be trained, by ``requires_grad``.

    Args:
        model: a network of `attnscope.build_model`.
        modules: ``all``, or any of ``classifier`` (the last linear layer), ``attention`` (all
            attention modules) and the names of modules.

    Raises:
        InputError: AS503, the network has no module with one of the names. Nothing was changed.
    """
    check_modules(model, modules)
    model.requires_grad_("all" in modules)
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if name in modules or (last == "attention" and "attention" in modules):
            module.requires_grad_(True)
        if name == "fc" and "classifier" in modules:
            module.requires_grad_(True)


def check_modules(model: nn.Module, modules: tuple[str, ...]) -> None:
    """Raise the error that `train_only` would raise, and change nothing."""
    existing = dict(model.named_modules())
    for name in modules:
        if name not in ("all", "classifier", "attention") and name not in existing:
            raise InputError(
                "AS503",
                f"the recipe trains the module '{name}', which the network does not have; "
                "choose another recipe or another network",
            )


def training_mode(model: nn.Module) -> None:
    """Switch to training mode, but keep frozen BatchNorm layers in eval mode.

    The running statistics of frozen layers then do not change.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            parameters = list(module.parameters(recurse=False))
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
