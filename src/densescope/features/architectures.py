"""timm models built at their training size, from names and options that can be checked."""

from __future__ import annotations

import ast
import difflib
import importlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from densescope.features.layouts import StepError
from densescope.features.normalization import Normalization, of_architecture
from densescope.text import named

# Options that would load weights from elsewhere or change what a backbone is.
_OPTIONS = (
    *("img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias"),
    *("init_values", "class_token", "global_pool", "fc_norm", "reg_tokens", "norm_eps"),
    *("no_embed_class", "qk_norm", "pre_norm"),
    *("window_size", "depths", "dynamic_img_size", "output_stride"),
)
_NO_ARCHITECTURE = (
    "this format fixes no architecture: name a timm model with --architecture, such as "
    "--architecture vit_small_patch16_224"
)
_REGISTERS = ("reg_token", "register_tokens", "storage_tokens")
_NEAR, _SAME_FAMILY = 0.75, 0.1  # likeness from 0 to 1
_LONGEST_NAME = 100
# Numbers of options; the largest vision transformers have a width of 6,144 and a depth of 64.
_MOST = {"img_size": 8192, "embed_dim": 16_384, "depth": 256, "num_heads": 1024, "mlp_ratio": 64}
_MOST_OF_ANY = 16_384
_FORBIDDEN = {"pretrained", "checkpoint_path", "pretrained_cfg", "num_classes", "features_only"}


@contextmanager
def without_values() -> Iterator[None]:
    """Networks that are built in this block have shapes, and take no memory for their values."""
    importlib.import_module("torch._dynamo")  # some versions of torch cannot load it in the block
    with torch.device("meta"):
        yield


def parse_architecture_options(assignments: Iterable[str]) -> dict[str, Any]:
    """Turn ``key=value`` texts into options; values are Python literals, else text.

    Args:
        assignments: each one option, or several with commas between them.

    Raises:
        StepError: a text has no ``=``.

    Example:
        >>> parse_architecture_options(["img_size=64,depth=5", "global_pool=avg"])
        {'img_size': 64, 'depth': 5, 'global_pool': 'avg'}
    """
    options = {}
    for text in assignments:
        for assignment in _split(text):
            key, equals, value = assignment.partition("=")
            if not equals or not key.strip():
                raise StepError(
                    "architecture",
                    f"architecture option {assignment!r} is not key=value, such as img_size=64",
                )
            options[key.strip()] = _literal(value.strip())
    return options


def _split(text: str) -> list[str]:
    """Cut at commas that are not inside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part for part in parts if part.strip()]


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


class _WithoutDraws(TorchFunctionMode):
    """Leaves out random initial weights: a strict load overwrites every one of them.

    Saves most of the building time, and leaves torch's global generator as it was.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


_DRAWS = frozenset(
    {
        Tensor.uniform_,
        Tensor.normal_,
        Tensor.erfinv_,
        nn.init.uniform_,
        nn.init.normal_,
        nn.init.kaiming_uniform_,
    }
)


def build_architecture(
    name: str, options: Mapping[str, Any], *, initialized: bool = False
) -> tuple[nn.Module, int]:
    """A timm model without classifier.

    Args:
        name: any timm model name.
        options: arguments of the model; ``norm_eps`` sets the epsilon of its layer norms, and
            ``img_size`` is the size it was trained at (for convolutional networks it only says
            which size to evaluate at).
        initialized: draw initial weights from torch's global generator; else the weights are
            whatever memory held and must be loaded.

    Returns:
        The model, and its training size in pixels.

    Raises:
        StepError: no such model, it refuses an option, or a width was given without heads.
    """
    import timm

    if not name:
        raise StepError("architecture", _NO_ARCHITECTURE)
    _refuse_numbers(options)
    if len(name) > _LONGEST_NAME or not timm.is_model(name):
        close = closest_names(name, timm.list_models())
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise StepError("architecture", f"timm has no architecture {named(name)!r}{hint}")
    forbidden = sorted(_FORBIDDEN & set(options))
    if forbidden:
        raise StepError("architecture", f"architecture option {forbidden[0]} is not allowed here")
    config = timm.models.get_pretrained_cfg(name)
    arguments = dict(options)
    size = arguments.get("img_size") or config.input_size[-1]
    try:
        size = int(size[0] if isinstance(size, tuple | list) else size)
        if not config.fixed_input_size:
            arguments.pop("img_size", None)
        if "norm_eps" in arguments:
            arguments["norm_layer"] = partial(nn.LayerNorm, eps=float(arguments.pop("norm_eps")))
        with nullcontext() if initialized else _WithoutDraws():
            model = timm.create_model(name, pretrained=False, num_classes=0, **arguments)
    except Exception as cause:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(cause))
        if unknown is not None:
            close = difflib.get_close_matches(unknown.group(1), _OPTIONS, n=1, cutoff=0.6)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise StepError(
                "architecture", f"architecture {name} has no option {unknown.group(1)!r}{hint}"
            ) from cause
        given = ", ".join(f"{key}={value}" for key, value in options.items())
        raise StepError(
            "architecture", f"architecture {name} cannot be built with {given}: {cause}"
        ) from cause
    _refuse_guessed_heads(name, options, model)
    return model, size


def _refuse_numbers(options: Mapping[str, Any]) -> None:
    """Refuse what no network has before anything is built of it."""
    for key, value in options.items():
        most = _MOST.get(key, _MOST_OF_ANY)
        for number in value if isinstance(value, tuple | list) else (value,):
            if isinstance(number, int | float) and not -most <= number <= most:
                raise StepError(
                    "architecture",
                    f"architecture option {named(key)}={named(value)} is beyond any network: at "
                    f"most {most:,}",
                )


def _refuse_guessed_heads(name: str, options: Mapping[str, Any], model: nn.Module) -> None:
    """Heads leave no trace in a file, except in Swin's tables of relative positions."""
    if "embed_dim" not in options or "num_heads" in options:
        return
    heads = [part.num_heads for part in model.modules() if hasattr(part, "num_heads")]
    if not heads or any("relative_position" in key for key in model.state_dict()):
        return
    raise StepError(
        "architecture",
        f"architecture {name} was given embed_dim={options['embed_dim']} without num_heads: timm "
        f"would take {heads[0]}, and heads leave no trace in a file. Give --architecture-option "
        "num_heads=N too, with the heads of the training, or name the architecture of that width",
    )


def architecture_normalization(name: str) -> Normalization:
    """The mean and standard deviation with which timm's own weights of an architecture go."""
    import timm

    return of_architecture(timm.models.get_pretrained_cfg(name).to_dict())


def closest_names(name: str, known: Sequence[str]) -> list[str]:
    """Up to three names near a wrong one: its family first, then the usual size, the shortest."""
    name = name[:_LONGEST_NAME]
    words = name.split("_")

    def distance(other: str) -> tuple[float, bool, int, str]:
        parts = other.split("_")
        begun = "_".join(parts[: len(words)])
        likeness = max(difflib.SequenceMatcher(None, name, part).ratio() for part in (other, begun))
        bonus = _SAME_FAMILY * (parts[0] == words[0])
        return -likeness - bonus, not other.endswith("patch16_224"), len(other), other

    near = sorted(known, key=distance)[:3]
    return [other for other in near if -distance(other)[0] >= _NEAR]


def resize(model: Any, trained_size: int, size: int, architecture: str) -> bool:
    """Prepare a model for another input size; whether any tensor had to be resampled for it.

    Swin keeps its windows, which slide over more of them, so its relative positions stay as they
    are; rotary positions are computed anew.

    Raises:
        StepError: the model cannot be evaluated at that size.
    """
    cell = int(model.feature_info[-1]["reduction"])
    if not hasattr(model, "set_input_size"):
        return False
    if size % cell:
        raise StepError(
            "architecture",
            f"{architecture} cannot be evaluated at {size} pixels: its cells have {cell} pixels, "
            f"take {size // cell * cell or cell} or {(size // cell + 1) * cell}",
        )
    if size == trained_size:
        return False
    before = {name: value.shape for name, value in model.state_dict().items()}
    layers = getattr(model, "layers", None)
    windows = {"window_size": layers[0].blocks[0].window_size} if layers else {}
    try:
        with torch.no_grad():
            model.set_input_size(img_size=(size, size), **windows)
    except Exception as cause:
        raise StepError(
            "architecture", f"{architecture} cannot be evaluated at {size} pixels: {cause}"
        ) from cause
    return any(value.shape != before[name] for name, value in model.state_dict().items())


def options_from_shapes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the shapes of a file say of its vision transformer; head counts cannot be seen.

    Returns:
        Options of timm's vision transformers that make tensors of these names and shapes; nothing
        for another family.
    """
    patch, position = tensors.get("patch_embed.proj.weight"), tensors.get("pos_embed")
    if patch is None or patch.ndim != 4 or "blocks.0.attn.qkv.weight" not in tensors:
        return {}
    width, cell, first = patch.shape[0], patch.shape[-1], "blocks.0."
    depth = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
    seen: dict[str, Any] = {"embed_dim": width, "depth": depth, "patch_size": cell}
    has_class = "cls_token" in tensors
    extra = next((tensors[name].shape[1] for name in _REGISTERS if name in tensors), 0)
    if position is not None and position.ndim == 3:
        # positions of class token and registers, of patches alone, of the class token
        for taken in (has_class + extra, 0, int(has_class)):
            side = math.isqrt(max(position.shape[1] - taken, 0))
            if side and side * side == position.shape[1] - taken:
                seen["img_size"] = side * cell
                seen |= {"no_embed_class": taken == 0} if has_class + extra else {}
                break
    if (hidden := tensors.get(f"{first}mlp.fc1.weight")) is not None:
        seen["mlp_ratio"] = _ratio(hidden.shape[0], width)
    seen["qkv_bias"] = f"{first}attn.qkv.bias" in tensors
    seen["qk_norm"] = f"{first}attn.q_norm.weight" in tensors
    seen["pre_norm"] = "norm_pre.weight" in tensors
    seen["init_values"] = 1e-5 if f"{first}ls1.gamma" in tensors else None
    seen["reg_tokens"] = extra
    seen["class_token"] = has_class
    return seen if has_class else {**seen, "global_pool": "avg", "fc_norm": False}


def _ratio(hidden: int, width: int) -> float:
    """The ratio of which timm makes this hidden width, rounding down."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)
