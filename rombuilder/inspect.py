"""What an option ROM image says about itself, and what is wrong with it.

Any PC option ROM can be inspected; a VMI ROM is also run (`rombuilder.probe`). What
counts as a defect is what a reader of ROMs would stumble over: firmware over sums,
lengths and PCIR, Linux over licence, API version and the answers of get_reloc.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from rombuilder.probe import LOAD_ADDRESS, NUMBERS, Outcome, Probe, probe
from rombuilder.romfile import OptionImage, has_pcir, option_images
from vmi.address import GuestVirtual, RomOffset
from vmi.calls import TIMER_CALLS, call_numbered
from vmi.header import (
    BLOCK_SIZE,
    GET_RELOC,
    LICENSES,
    ROM_SIGNATURE,
    VMI_DEVICE,
    VMI_INIT,
    VMI_VENDOR,
    HeaderError,
    Pcir,
    Pnp,
    RomHeader,
    checksum,
)
from vmi.relocation import RelocationAnswer, RelocationKind

__all__ = ["CallAnswer", "Defect", "Inspection", "inspect_rom"]

_API_MAJOR = 3
_PC_AT, _EFI = 0, 3
_PCIR_SIZE = 0x18
_MAX_STRING = 256


@dataclass(frozen=True, slots=True)
class Defect:
    """One thing that is wrong: a stable `code` and a sentence."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class CallAnswer:
    """get_reloc's answer for one call; `offset` into the image, for calls and jumps."""

    number: int
    name: str
    kind: RelocationKind
    offset: RomOffset | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """All that was found. Sizes in bytes; VMI fields are None or empty in other ROMs."""

    file_size: int
    sha256: str
    header: RomHeader
    checksum: int
    """The byte sum of the claimed image mod 256, 0 in a good one."""
    pcir: Pcir | None
    pnp: Pnp | None
    manufacturer: str | None
    product: str | None
    license: str | None
    init_result: int | None
    calls: tuple[CallAnswer, ...]
    images: tuple[OptionImage, ...]
    """Every image in the file; the fields above are of the first."""
    defects: tuple[Defect, ...]

    @property
    def is_vmi(self) -> bool:
        """Does a Linux guest take it for a VMI ROM?"""
        return self.header.is_vmi

    @property
    def routines(self) -> dict[str, int]:
        """What a guest can call, by name, as offsets into the image."""
        if not self.is_vmi:
            return {}
        found: dict[str, int] = {"vmi_init": VMI_INIT, "get_reloc": GET_RELOC}
        size = self.header.size
        return found | {
            call.name: call.offset
            for call in self.calls
            if call.offset is not None and call.offset < size
        }


def inspect_rom(data: bytes) -> Inspection:
    """Inspect an image; raises `HeaderError` when it is no option ROM at all."""
    header = RomHeader.parse(data)
    if header.rom_signature != ROM_SIGNATURE:
        raise HeaderError(
            f"not an option ROM: it starts with {header.rom_signature:#06x}, "
            f"expected {ROM_SIGNATURE:#06x}"
        )
    defects = list(_size_defects(header, data))
    image = data[: header.size] or data
    total = checksum(image)
    if total:
        defects.append(Defect("checksum", f"the bytes sum to {total:#04x}, expected 0"))
    pcir, found = _pcir(header, image)
    defects += found
    images = option_images(data)
    defects += _image_defects(images, data)
    pnp, found = _pnp(header, image)
    defects += found
    result = None
    calls: tuple[CallAnswer, ...] = ()
    license_text = None
    if header.is_vmi:
        license_text = _string(image, header.license_offset)
        defects += _vmi_defects(header, pcir, license_text)
        run = probe(image)
        result = run.init.eax if not run.init.problem else None
        calls, found = _answers(run, len(image))
        defects += found
    return Inspection(
        len(data),
        hashlib.sha256(data).hexdigest(),
        header,
        total,
        pcir,
        pnp,
        _string(image, pnp.manufacturer_offset) if pnp else None,
        _string(image, pnp.product_offset) if pnp else None,
        license_text,
        result,
        calls,
        tuple(images),
        tuple(defects),
    )


def _image_defects(images: list[OptionImage], data: bytes) -> Iterator[Defect]:
    """What is wrong between images, and with those after the first."""
    for number, image in enumerate(images, 1):
        where = f"image {number} at {image.offset:#x}"
        end = image.offset + image.size
        if image.code_type == _EFI and image.efi is None:
            yield Defect("efi", f"{where}: its code type is EFI, but it has no EFI header")
        for offset, header in list(image.pnp.items())[1:]:
            if not header.checksum_ok:
                yield Defect("pnp-checksum", f"{where}: $PnP at {offset:#x} does not sum to 0")
        if image.runtime_size is not None and image.runtime_size > image.size:
            yield Defect(
                "runtime-size",
                f"{where}: {image.runtime_size} bytes at run time, more than its {image.size}",
            )
        if number == 1:
            continue
        if end > len(data):
            yield Defect(
                "truncated", f"{where} claims {image.size} bytes, the file ends at {len(data):#x}"
            )
        elif image.code_type == _PC_AT and checksum(data[image.offset : end]):
            total = checksum(data[image.offset : end])
            yield Defect("checksum", f"{where}: the bytes sum to {total:#04x}, expected 0")
    last = images[-1].pcir if images else None
    if last is not None and not last.is_last:
        end = images[-1].offset + last.image_blocks * BLOCK_SIZE
        yield Defect("last-image", f"another image is announced at {end:#x}, and there is none")


def _string(image: bytes, offset: RomOffset) -> str | None:
    """The NUL-terminated text at an offset; None for offset 0 or where there is none."""
    end = image.find(b"\0", offset, offset + _MAX_STRING)
    if not offset or end < 0:
        return None
    return image[offset:end].decode("latin-1")


def _size_defects(header: RomHeader, data: bytes) -> Iterator[Defect]:
    if not header.rom_length:
        yield Defect("size-zero", "the header claims a size of 0")
    elif header.size > len(data):
        yield Defect(
            "truncated", f"the header claims {header.size} bytes, the file has {len(data)}"
        )


def _pcir(header: RomHeader, image: bytes) -> tuple[Pcir | None, list[Defect]]:
    offset = header.pcir_offset
    # Outside VMI the word means something only when PCIR is there.
    if not offset or not (header.is_vmi or has_pcir(image)):
        return None, []
    try:
        pcir = Pcir.parse(image, offset)
    except HeaderError as error:
        return None, [Defect("pcir", str(error))]
    defects = []
    if offset % 4:
        defects.append(Defect("pcir-alignment", f"PCIR at {offset:#x} is not on a 4-byte boundary"))
    if pcir.length < _PCIR_SIZE:
        defects.append(
            Defect("pcir-length", f"PCIR is {pcir.length} bytes long, at least {_PCIR_SIZE} needed")
        )
    if pcir.code_type == 0 and pcir.image_blocks != header.rom_length:
        defects.append(
            Defect(
                "pcir-size",
                f"PCIR claims {pcir.image_blocks * BLOCK_SIZE} bytes, the header {header.size}",
            )
        )
    return pcir, defects


def _pnp(header: RomHeader, image: bytes) -> tuple[Pnp | None, list[Defect]]:
    offset = header.pnp_offset
    if not offset:
        return None, []
    try:
        pnp = Pnp.parse(image, offset)
    except HeaderError as error:
        # Outside VMI the word at 0x1A means something only when $PnP is there.
        return None, [Defect("pnp", str(error))] if header.is_vmi else []
    if not pnp.checksum_ok:
        return pnp, [Defect("pnp-checksum", f"$PnP at {offset:#x} does not sum to 0")]
    return pnp, []


def _vmi_defects(
    header: RomHeader, pcir: Pcir | None, license_text: str | None
) -> Iterator[Defect]:
    if header.api_major != _API_MAJOR:
        yield Defect(
            "api-version",
            f"API version {header.api_major}.{header.api_minor}, Linux takes {_API_MAJOR}.x only",
        )
    if not header.pcir_offset:
        yield Defect("pcir-missing", "no PCI data structure, Linux refuses the ROM")
    elif pcir is not None and (pcir.vendor, pcir.device) != (VMI_VENDOR, VMI_DEVICE):
        yield Defect(
            "pci-id",
            f"PCI id {pcir.vendor:04x}:{pcir.device:04x}, "
            f"expected {VMI_VENDOR:04x}:{VMI_DEVICE:04x}",
        )
    if license_text is None or license_text.encode("latin-1") not in LICENSES:
        known = " and ".join(repr(text.decode()) for text in LICENSES)
        yield Defect("license", f"licence {license_text!r}, Linux takes only {known}")


def _broken(name: str, outcome: Outcome) -> Iterator[Defect]:
    for rule in outcome.broken:
        yield Defect("convention", f"{name}: {rule}")


def _answers(run: Probe, size: int) -> tuple[tuple[CallAnswer, ...], list[Defect]]:
    if run.init.problem:
        return (), [Defect("vmi-init", f"vmi_init {run.init.problem}")]
    defects = list(_broken("vmi_init", run.init))
    if run.init.eax:
        defects.append(
            Defect("vmi-init", f"vmi_init answers {run.init.eax:#x}, the guest stays native")
        )
    calls = []
    for number, outcome in enumerate(run.answers):
        if outcome.problem:
            defects.append(Defect("get-reloc", f"get_reloc({number}) {outcome.problem}"))
            break
        defects += _broken(f"get_reloc({number})", outcome)
        try:
            answer = RelocationAnswer.from_registers(outcome.eax, outcome.edx)
        except ValueError as error:
            defects.append(Defect("relocation-kind", f"call {number}: {error}"))
            continue
        call = _call(number, answer)
        calls.append(call)
        defects += _call_defects(call, answer.address, size)
    kinds = {call.number: call.kind for call in calls}
    if len(run.answers) == NUMBERS:
        defects += _timer_defects(kinds)
    return tuple(calls), defects


def _name(number: int) -> str:
    try:
        return call_numbered(number).name
    except KeyError:
        return f"call {number}"


def _call(number: int, answer: RelocationAnswer) -> CallAnswer:
    offset = None
    if answer.kind in (RelocationKind.CALL_REL, RelocationKind.JUMP_REL):
        offset = RomOffset((answer.address - LOAD_ADDRESS) & 0xFFFFFFFF)
    return CallAnswer(number, _name(number), answer.kind, offset)


def _call_defects(call: CallAnswer, address: GuestVirtual, size: int) -> Iterator[Defect]:
    if call.offset is not None and call.offset >= size:
        yield Defect(
            "relocation-address",
            f"{call.name} is said to be at {address:#x}, outside the image at "
            f"[{LOAD_ADDRESS:#x}, {LOAD_ADDRESS + size:#x})",
        )
    try:
        known = call_numbered(call.number)
    except KeyError:
        if call.kind is not RelocationKind.NONE:
            yield Defect(
                "unknown-call", f"call {call.number} does not exist, the answer is {call.kind.name}"
            )
        return
    if known.must_patch and call.kind is not RelocationKind.JUMP_REL:
        yield Defect(
            "must-patch", f"{call.name} must be answered with JUMP_REL, not {call.kind.name}"
        )
    if known.returns and call.kind is RelocationKind.JUMP_REL:
        yield Defect("jump", f"{call.name} returns, so JUMP_REL makes Linux stop")


def _timer_defects(kinds: dict[int, RelocationKind]) -> Iterator[Defect]:
    first, *others = TIMER_CALLS
    if kinds.get(first, RelocationKind.NONE) is RelocationKind.NONE:
        return
    for number in others:
        if kinds.get(number) is RelocationKind.NONE:
            yield Defect(
                "timer-group",
                f"{_name(first)} is offered but {_name(number)} is not: Linux calls address 0",
            )
