"""The networks of the table of coverage, and the inputs on which each of them runs."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Network:
    """One network of the table."""

    name: str
    """``GROUP/NAME``."""
    build: Callable[[], nn.Module]
    """Returns the network with random weights."""
    inputs: Callable[[int], Any]
    """Returns two images of this size, normalized, as `attnscope.find_gates` takes them."""
    sizes: tuple[int, ...]
    """Sizes of the images in pixels, of which the first that the network accepts is taken."""

    @property
    def group(self) -> str:
        """The package or the part of it."""
        return self.name.partition("/")[0]


TINY = (
    "timm/seresnet18",
    "timm/mobilenetv3_small_050",
    "torchvision/resnet18",
    "attnscope/resnet18-cbam",
    "attnscope/cnn-eca",
)
"""Five small networks, for the test of the script."""

FAMILIES = Path(__file__).parents[2] / "docs" / "results" / "coverage" / "timm_families.json"
"""The smallest members of the families of timm, with its version."""


def images(size: int, channels: int = 3) -> Tensor:
    """Return two random images ``(2, channels, size, size)``."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, channels, size, size, generator=generator)


def _noise(*shape: int) -> Callable[[int], Tensor]:
    """Return a function of the size, which stands for each 0 of the shape."""

    def make(size: int) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.randn([axis or size for axis in shape], generator=generator)

    return make


def own() -> Iterator[Network]:
    """Yield the networks of attnscope with each of its attention modules."""
    from attnscope.networks.attention import attention_names
    from attnscope.networks.build import build_model

    for name in ("resnet18", "resnet50", "cnn"):
        for attention in attention_names():
            yield Network(
                f"attnscope/{name}-{attention}",
                lambda name=name, attention=attention: build_model(  # type: ignore[misc]
                    name, attention=attention
                ),
                images,
                (32,),
            )


def timm_families() -> Iterator[Network]:
    """Yield the smallest member of each family of timm.

    A family is the file in ``timm.models`` and the letters with which the name begins, without
    ``tf_`` and ``legacy_``. The smallest member has the fewest parameters, and among equals the
    first name. It takes minutes to count the parameters of all members, so the answer is stored.
    """
    import timm

    stored = json.loads(FAMILIES.read_text(encoding="utf-8")) if FAMILIES.is_file() else {}
    if stored.get("timm") != timm.__version__:
        stored = {"timm": timm.__version__, "smallest": _smallest_members()}
        FAMILIES.parent.mkdir(parents=True, exist_ok=True)
        FAMILIES.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    for name in stored["smallest"]:
        yield timm_network(name)


def _smallest_members() -> list[str]:
    import timm

    smallest: dict[tuple[str, str], tuple[int, str]] = {}
    for name in timm.list_models():
        with torch.device("meta"):
            count = sum(p.numel() for p in timm.create_model(name).parameters())
        module = timm.models.model_entrypoint(name).__module__.rpartition(".")[2]
        word = re.match("[a-z]+", re.sub("^(tf|legacy)_", "", name))
        family = module, word[0] if word else name
        smallest[family] = min(smallest.get(family, (2**63, "")), (count, name))
    return sorted(name for _, name in smallest.values())


def timm_network(name: str) -> Network:
    """Return a network of timm."""
    import timm

    config = timm.get_pretrained_cfg(name)
    own_size = config.input_size[-1] if config is not None else 224
    channels = config.input_size[0] if config is not None else 3
    sizes = tuple(dict.fromkeys((64, 128, 224, own_size)))
    return Network(
        f"timm/{name}",
        lambda: timm.create_model(name, pretrained=False),
        lambda size: images(size, channels),
        sizes,
    )


def torchvision_networks() -> Iterator[Network]:
    """Yield all networks of torchvision, except for the quantized forms of some of them."""
    from torchvision import models

    of_lists = set(models.list_models(models.detection))
    videos = set(models.list_models(models.video))
    flows = set(models.list_models(models.optical_flow))
    for name in models.list_models():
        if name.startswith("quantized_"):
            continue
        build = _torchvision(name)
        inputs: Callable[[int], Any] = images
        sizes: tuple[int, ...] = (64, 128, 224, 299)
        if name in of_lists:
            inputs, sizes = _list_of_images, (128, 320)
        elif name in videos:
            inputs, sizes = _noise(2, 3, 16, 0, 0), (64, 112, 224)
        elif name in flows:
            inputs, sizes = _pair_of_images, (128,)
        yield Network(f"torchvision/{name}", build, inputs, sizes)


def _builder(name: str) -> Any:
    from torchvision import models

    return models.get_model_builder(name)


def _torchvision(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        parameters = inspect.signature(_builder(name)).parameters
        keywords: dict[str, Any] = {"weights": None}
        if "weights_backbone" in parameters:
            keywords["weights_backbone"] = None
        if name.endswith(("googlenet", "inception_v3")):
            keywords |= {"aux_logits": True, "init_weights": False}
        if "weights_backbone" in parameters and name.endswith(("fpn", "fpn_v2")):
            keywords |= {"min_size": 128, "max_size": 128}  # instead of 800 pixels
            if "rcnn" in name:  # boxes per image
                keywords |= {"rpn_pre_nms_top_n_test": 50, "rpn_post_nms_top_n_test": 50}
        model: nn.Module = _builder(name)(**keywords)
        return model

    return build


def _list_of_images(size: int) -> list[Tensor]:
    return [(each * 0.2 + 0.5).clamp(0, 1) for each in images(size)]


def _pair_of_images(size: int) -> tuple[Tensor, Tensor]:
    pair = images(size).clamp(-1, 1)
    return pair, pair.roll(2, -1)


def smp_networks() -> Iterator[Network]:
    """Yield the architectures of segmentation_models_pytorch, with scSE where it is an option."""
    smp: Any = importlib.import_module("segmentation_models_pytorch")

    plain = ("DeepLabV3", "DeepLabV3Plus", "DPT", "FPN", "Linknet", "MAnet", "PAN", "PSPNet")
    for name in (*plain, "Segformer", "UPerNet"):
        encoder = "tu-vit_tiny_patch16_224" if name == "DPT" else "resnet18"
        yield _smp(getattr(smp, name), f"{name}-{encoder}", encoder)
    for name in ("Unet", "UnetPlusPlus"):
        for encoder in ("resnet18", "se_resnet50", "efficientnet-b0", "mobilenet_v2"):
            yield _smp(getattr(smp, name), f"{name}-scse-{encoder}", encoder, "scse")
        yield _smp(getattr(smp, name), f"{name}-resnet18", "resnet18")


def _smp(build: Any, name: str, encoder: str, attention: str = "") -> Network:
    keywords: dict[str, Any] = {"encoder_name": encoder, "encoder_weights": None}
    if attention:
        keywords["decoder_attention_type"] = attention
    return Network(f"smp/{name}", lambda: build(**keywords), images, (64, 128, 224))


def monai_networks() -> Iterator[Network]:
    """Yield MONAI's networks and blocks with squeeze-and-excitation, and its attention networks."""
    blocks: Any = importlib.import_module("monai.networks.blocks")
    nets: Any = importlib.import_module("monai.networks.nets")

    for dims in (2, 3):
        shape = _noise(2, 3, *(0,) * dims)
        deeper = ("SEResNet101", "SEResNet152", "SEResNext101") if dims == 2 else ()
        for name in ("SEResNet50", "SEResNext50", *deeper):
            build = getattr(nets, name)
            yield _monai(f"{name}-{dims}d", build, shape, spatial_dims=dims, in_channels=3)
        yield _monai(f"SENet154-{dims}d", nets.SENet154, shape, spatial_dims=dims, in_channels=3)
        yield _monai(
            f"AttentionUnet-{dims}d",
            nets.AttentionUnet,
            shape,
            spatial_dims=dims,
            in_channels=3,
            out_channels=2,
            channels=(8, 16, 32),
            strides=(2, 2),
        )
        for name in ("SegResNet", "BasicUNet"):
            build = getattr(nets, name)
            yield _monai(f"{name}-{dims}d", build, shape, spatial_dims=dims, in_channels=3)
        yield Network(
            f"monai/EfficientNetBN-b0-{dims}d",
            lambda dims=dims: nets.EfficientNetBN(  # type: ignore[misc]
                "efficientnet-b0", pretrained=False, spatial_dims=dims
            ),
            shape,
            (64,),
        )
    for dims in (1, 2, 3):
        shape = _noise(2, 8, *(0,) * dims)
        for name in ("ChannelSELayer", "ResidualSELayer"):
            build = getattr(blocks, name)
            yield _monai(f"{name}-{dims}d", build, shape, spatial_dims=dims, in_channels=8)
        yield _monai(
            f"SEBlock-{dims}d",
            blocks.SEBlock,
            shape,
            spatial_dims=dims,
            in_channels=8,
            n_chns_1=8,
            n_chns_2=8,
            n_chns_3=8,
        )
    yield _monai("DAF3D", nets.DAF3D, _noise(2, 1, 0, 0, 0), in_channels=1, out_channels=2)


def _monai(name: str, build: Any, inputs: Callable[[int], Any], **keywords: Any) -> Network:
    return Network(f"monai/{name}", lambda: build(**keywords), inputs, (32, 64, 96))


def ultralytics_networks() -> Iterator[Network]:
    """Yield Ultralytics' attention blocks, and its networks from the files of the package."""
    modules: Any = importlib.import_module("ultralytics.nn.modules")
    tasks: Any = importlib.import_module("ultralytics.nn.tasks")
    blocks: dict[str, tuple[Any, ...]] = {
        "CBAM": (16,),
        "ChannelAttention": (16,),
        "SpatialAttention": (),
        "C2PSA": (128, 128),
        "PSA": (128, 128),
        "C2fPSA": (128, 128),
        "A2C2f": (64, 64),
        "TransformerBlock": (16, 32, 4, 1),
    }
    for name, arguments in blocks.items():
        channels = 64 if name == "A2C2f" else 128 if "PSA" in name else 16
        yield Network(
            f"ultralytics/{name}",
            lambda name=name, arguments=arguments: nn.Sequential(  # type: ignore[misc]
                getattr(modules, name)(*arguments)
            ),
            _noise(2, channels, 0, 0),
            (32,),
        )
    detect, classify = tasks.DetectionModel, tasks.ClassificationModel
    segment, pose = tasks.SegmentationModel, tasks.PoseModel
    for name in ("yolov5n", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo26n"):
        yield _yolo(name, detect)
    yield _yolo("yolov8n-ghost", detect)
    yield _yolo("rtdetr-l", tasks.RTDETRDetectionModel)
    yield _yolo("yolov8n-worldv2", tasks.WorldModel)
    for version in ("yolov8n", "yolo11n", "yolo12n", "yolo26n"):
        yield _yolo(f"{version}-cls", classify)
        yield _yolo(f"{version}-seg", segment)
    yield _yolo("yolo11n-pose", pose)
    yield Network(
        "ultralytics/yolov8n with CBAM",
        lambda: _yolo_with_cbam(tasks, detect),
        _unit_images,
        (64, 128),
    )


def _yolo(name: str, build: Any) -> Network:
    return Network(
        f"ultralytics/{name}", lambda: build(f"{name}.yaml", verbose=False), _unit_images, (64, 128)
    )


def _yolo_with_cbam(tasks: Any, build: Any) -> Any:
    """Return YOLOv8n with CBAM after the last stage of the backbone, as in many papers."""
    config = tasks.yaml_model_load("yolov8n.yaml")
    # CBAM replaces the pooling that keeps the shape; the parser gives it the channels.
    model = build(config, verbose=False)
    modules: Any = importlib.import_module("ultralytics.nn.modules")
    layer = model.model[9]
    block = nn.Sequential(layer, modules.CBAM(layer.cv2.conv.out_channels))
    for attribute in ("i", "f", "type", "np"):
        setattr(block, attribute, getattr(layer, attribute))
    model.model[9] = block
    return model


def _unit_images(size: int) -> Tensor:
    return (images(size) * 0.2 + 0.5).clamp(0, 1)


SOURCES: dict[str, Callable[[], Iterator[Network]]] = {
    "attnscope": own,
    "smp": smp_networks,
    "monai": monai_networks,
    "ultralytics": ultralytics_networks,
    "timm": timm_families,
    "torchvision": torchvision_networks,
}
"""Group -> its networks. A group whose package is not installed is skipped."""


def tiny() -> Iterator[Network]:
    """Yield the networks of `TINY`."""
    for name in TINY:
        group, _, rest = name.partition("/")
        if group == "timm":
            yield timm_network(rest)
        else:
            yield next(each for each in SOURCES[group]() if each.name == name)
