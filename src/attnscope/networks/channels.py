"""The number of channels of the images that a network takes."""

from __future__ import annotations

from torch import Tensor, nn

from attnscope.errors import InputError

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def channels_of(model: nn.Module) -> int:
    """Return the number of channels of the images: that of a network of attnscope, else 3."""
    return getattr(getattr(model, "attnscope_config", None), "channels", 3)


def expect_channels(model: nn.Module, images: Tensor) -> None:
    """Refuse images with another number of channels than the first convolution takes.

    Call it after a forward has failed. A network whose first convolution does not get the images
    themselves passes.

    Args:
        model: The network.
        images: The images on which it failed, ``(N, C, ...)``.

    Raises:
        InputError: AS339, the number of channels differs.
    """
    wanted: list[int] = []

    class _Found(Exception):
        pass

    def look(module: nn.Module, args: tuple[object, ...]) -> None:
        if isinstance(module, _CONVOLUTIONS):
            given = args[0] if args else None
            if isinstance(given, Tensor) and given.shape[-1] == images.shape[-1]:
                wanted.append(module.in_channels)
            raise _Found

    handles = [
        module.register_forward_pre_hook(look)
        for module in model.modules()
        if isinstance(module, _CONVOLUTIONS)
    ]
    try:
        model(images)
    except Exception:  # it has failed before
        pass
    finally:
        for handle in handles:
            handle.remove()
    if wanted and wanted[0] != images.shape[1]:
        raise InputError(
            "AS339",
            f"the network takes images of {_channels(wanted[0])}, and the images have "
            f"{_channels(images.shape[1])}; choose them with --channels {wanted[0]}, or give a "
            f"data set whose images have {_channels(wanted[0])}",
        )


def _channels(count: int) -> str:
    return "1 channel" if count == 1 else f"{count} channels"
