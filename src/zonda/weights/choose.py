"""Which of a folder's or a repository's files make up the model that was asked for. Works on names alone."""
from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from zonda.errors import InvalidModel, InvalidRequest, ModelNotFound, Unsupported

Kind = Literal["gguf", "safetensors"]
Format = Literal["plain", "gguf"]

LABEL = re.compile(
    r"(?:^|[-._])(UD[-_])?((?:IQ|TQ|Q)\d(?:_(?:K|[0-8]|XXS|XS|S|M|L|XL|NL))*|B?F16|F32|MXFP4|NVFP4)(?=$|[-._])",
    re.IGNORECASE)
SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})")
WHOLE = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
PREFERENCE = {
    2: ("Q2_K", "Q2_K_L", "Q2_K_S"),
    3: ("Q3_K_M", "Q3_K_S", "Q3_K_L", "Q3_K"),
    4: ("Q4_K_M", "Q4_K_S", "Q4_K_L", "Q4_1", "Q4_0", "Q4_K"),
    5: ("Q5_K_M", "Q5_K_S", "Q5_K_L", "Q5_1", "Q5_0", "Q5_K"),
    6: ("Q6_K", "Q6_K_S", "Q6_K_L"),
    8: ("Q8_0", "Q8_K"),
}
"""Bit width -> names of quantizations, best first."""
USUAL = (4, 5, 6, 8, 3, 2)
"""Widths to look for when none is asked for."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
NOT_WEIGHTS = ("mmproj", "imatrix")


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user said of the files: their names, their format, a bit width or the name of a quantization."""

    files: tuple[str, ...] = ()
    format: Format | None = None
    quant: str | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """One GGUF model, in one file or in shards; `label` is its quantization, `base` its name without that."""

    label: str
    base: str
    files: tuple[str, ...]
    total: int

    @property
    def width(self) -> int | None:
        """Bits that a Q format names; None for others."""
        found = re.match(r"(?:UD-)?Q(\d)", self.label)
        return int(found[1]) if found else None

    @property
    def rank(self) -> tuple[int, int]:
        plain = self.label.removeprefix("UD-")
        order = PREFERENCE.get(self.width or 0, ())
        place = order.index(plain) if plain in order else len(order)
        return (1, place) if plain != self.label else (0 if place < len(order) else 2, place)


def choose(names: Sequence[str], wish: Wish, where: str) -> tuple[Kind, tuple[str, ...]]:
    """The kind and the weight files to use among the `names` in `where`."""
    if wish.files:
        return _named(names, wish, where)
    gguf, plain = variants(names), whole(names)
    if wish.format == "gguf" or (wish.format is None and gguf and not plain):
        return "gguf", _variant(gguf, wish.quant, where).files
    if plain and gguf and wish.quant is not None and wish.format is None:
        raise Unsupported(f"{where} has GGUF and safetensors files, and --quant {wish.quant} may mean either",
                          hint="choose among the GGUF files by --format gguf, or quantize the others by --format plain")
    if plain:
        if wish.quant is not None:
            from zonda.weights.quantize import format_of

            format_of(wish.quant)  # so that what cannot be is told before anything is downloaded
        return "safetensors", plain
    if gguf:
        raise ModelNotFound(f"{where} has GGUF files alone, which --format plain excludes", hint="leave --format out")
    raise _nothing(names, where)


def kind_of(files: Iterable[str]) -> Kind:
    """The one kind of weight files that the names end in."""
    kinds = {name.rsplit(".", 1)[-1].lower() for name in files}
    if kinds == {"gguf"}:
        return "gguf"
    if kinds == {"safetensors"}:
        return "safetensors"
    if any(f".{kind}" in PICKLES for kind in kinds):
        raise Unsupported("weights in pickle files can run code when they are read, so Zonda does not read them",
                          hint="convert the model to safetensors, or choose a repository that has them")
    raise Unsupported(f"weight files ending in {', '.join(sorted(kinds))[:60]} are not supported",
                      hint="name .gguf files, or one .safetensors file")


def variants(names: Iterable[str]) -> list[Variant]:
    """The GGUF models among the names, shards together."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        stem, _, ending = name.rpartition(".")
        if ending == "gguf" and not any(word in name.lower() for word in NOT_WEIGHTS):
            groups.setdefault(SHARD.sub(r"\1/\3", stem), []).append(name)
    return [_variant_of(files) for files in groups.values()]


def _variant_of(files: list[str]) -> Variant:
    stem = files[0].rsplit("/", 1)[-1].removesuffix(".gguf")
    shard = SHARD.fullmatch(stem)
    stem, total = (shard[1], int(shard[3])) if shard else (stem, 1)
    found = list(LABEL.finditer(stem))
    if not found:
        return Variant("", stem.lower(), tuple(files), total)
    label, last = found[-1][2].upper(), found[-1]
    base = (stem[:last.start()] + stem[last.end():]).lower()
    return Variant(f"UD-{label}" if last[1] else label, base, tuple(files), total)


def _variant(found: list[Variant], quant: str | None, where: str) -> Variant:
    if not found:
        raise ModelNotFound(f"{where} has no GGUF file")
    if quant is None:
        chosen = found if len(found) == 1 else _usual(found)
    elif width := re.fullmatch("[qQ]?([0-9])", quant):
        chosen = _of_width(found, int(width[1]))
    else:
        chosen = [one for one in found if one.label == quant.upper().replace("UD_", "UD-")]
    if not chosen:
        raise _no_variant(found, quant, where)
    if len({one.base for one in chosen}) > 1 or (len(chosen) > 1 and chosen[0].rank == chosen[1].rank):
        raise InvalidModel(f"{where} has several files that fit: {_listed(chosen)}", hint="name one with -f FILE")
    if len(chosen[0].files) != chosen[0].total:
        raise InvalidModel(f"{where} has {len(chosen[0].files)} of {chosen[0].total} shards of {chosen[0].files[0]}",
                           hint="the download is incomplete: download the model again")
    return chosen[0]


def _usual(found: list[Variant]) -> list[Variant]:
    return next((some for width in USUAL if (some := _of_width(found, width))), [])


def _of_width(found: list[Variant], width: int) -> list[Variant]:
    """The models of that width, best first."""
    return sorted((one for one in found if one.width == width), key=lambda one: one.rank)


def _no_variant(found: list[Variant], quant: str | None, where: str) -> Exception:
    if quant == "auto":
        return Unsupported("--quant auto does not choose among GGUF files", hint="give a bit width, such as --quant 4")
    width = re.fullmatch("[qQ]?([0-9])", quant or "")
    if width and any(re.match(f"(UD-)?IQ{width[1]}", one.label) for one in found):
        return Unsupported(f"{where} has only IQ files of {quant} bits, which Zonda does not read", hint=_listed(found))
    asked = f"no GGUF file for --quant {quant}" if quant else "no GGUF file of 2 to 8 bits"
    return ModelNotFound(f"{where} has {asked:.60}", hint=f"it has {_listed(found)}")


def _listed(found: list[Variant]) -> str:
    names = [one.files[0] for one in found]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def whole(names: Iterable[str]) -> tuple[str, ...]:
    """The safetensors files of the whole model at the top of a folder."""
    top = sorted(name for name in names if "/" not in name and name.endswith(".safetensors"))
    if "model.safetensors" in top:
        return ("model.safetensors",)
    return tuple(name for name in top if WHOLE.fullmatch(name)) or tuple(
        name for name in top if not name.startswith(("adapter", "consolidated")))


def check(kind: Kind, wish: Wish, file: str) -> None:
    """Raise `InvalidRequest` if the file that was named is not what else is said of it."""
    if wish.format is not None and (wish.format == "gguf") != (kind == "gguf"):
        other = "plain" if wish.format == "gguf" else "gguf"
        raise InvalidRequest(f"{file:.200} is a {kind} file, which --format {wish.format} excludes", param="format",
                             hint=f"leave --format out, say {other}, or name a folder or repository that has the other")
    if wish.quant is not None and kind == "gguf":
        raise InvalidRequest(f"--quant {wish.quant:.20} chooses among files, but {file:.200} is named", param="quant",
                             hint="leave one of them out")


def _named(names: Sequence[str], wish: Wish, where: str) -> tuple[Kind, tuple[str, ...]]:
    kind = kind_of(wish.files)
    check(kind, wish, wish.files[0])
    missing = [name for name in wish.files if name not in names]
    if missing:
        found = [name for name in names if name.endswith((".gguf", ".safetensors"))]
        listed = ", ".join(found[:12]) or "no weights"
        raise ModelNotFound(f"{where} has no file {missing[0]:.100}", hint=f"it has {listed}")
    if kind == "safetensors" and len(wish.files) > 1:
        raise Unsupported("several safetensors files are found by their index", hint="name the folder or repository")
    shards = [one.files for one in variants(names) if len(wish.files) == 1 and wish.files[0] in one.files]
    return kind, shards[0] if shards else wish.files


def _nothing(names: Sequence[str], where: str) -> Exception:
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles:
        return Unsupported(f"{where} has its weights as pickle ({pickles[0]:.60}), which can run code when it is read",
                           hint="convert the model to safetensors, or choose a repository that has them")
    return ModelNotFound(f"{where} has no safetensors and no GGUF files")
