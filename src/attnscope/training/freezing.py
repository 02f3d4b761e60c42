"""Which parts of a network a training changes."""

from __future__ import annotations

from torch import nn

from attnscope.errors import InputError


def train_only(model: nn.Module, parts: tuple[str, ...]) -> None:
    """Lets only ``parts`` of a network be trained.

    Args:
        model: of `build_model`.
        parts: ``all``, or some of ``classifier`` (the last linear layer), ``attention`` (every
            attention module) and the names of modules.

    Raises:
        InputError: the network lacks a named module; nothing was changed.
    """
    check_parts(model, parts)
    model.requires_grad_("all" in parts)
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if name in parts or (last == "attention" and "attention" in parts):
            module.requires_grad_(True)
        if name == "fc" and "classifier" in parts:
            module.requires_grad_(True)


def check_parts(model: nn.Module, parts: tuple[str, ...]) -> None:
    """Raises an InputError where `train_only` would."""
    modules = dict(model.named_modules())
    for part in parts:
        if part not in ("all", "classifier", "attention") and part not in modules:
            raise InputError(f"the recipe trains {part}, which this network does not have")


def training_mode(model: nn.Module) -> None:
    """``model.train()``, but norms whose parameters are frozen keep their running statistics."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            parameters = list(module.parameters(recurse=False))
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
