"""A machine's description, as it is kept in a saved machine."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from vmi.address import GuestPhysical, Port
from vmm.core.errors import BadDescription
from vmm.core.policy import POLICIES, Policy
from vmm.description import MachineDescription
from vmm.deviceentries import plug_named
from vmm.devices.disk import Writes
from vmm.devices.pluggable import Plug
from vmm.filters.isa import decode, encode
from vmm.filters.program import FilterProgram, PortRange

__all__ = ["Resumed", "description_of", "disk_identity", "save_description"]

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Resumed:
    """A description out of a file, with what of it could not be had: `missing` devices."""

    description: MachineDescription
    guest_sha256: str
    missing: tuple[str, ...]


def disk_identity(file: BinaryIO) -> dict[str, Any]:
    """Size and SHA-256 of a disk image, by which it is known again."""
    digest = hashlib.sha256()
    size = 0
    file.seek(0)
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        size += len(chunk)
    return {"size": size, "sha256": digest.hexdigest()}


def save_description(about: MachineDescription, disk: BinaryIO | None) -> dict[str, Any]:
    """The description, without what the guest's start alone needs, and without limits of a run."""
    return {
        "rom": about.rom,
        "command_line": about.command_line,
        "disk": None if disk is None else _save_disk(about, disk),
        "memory": about.memory,
        "backings": [[name, size] for name, size in about.backings],
        "policy": about.policy.name,
        "exits": sorted(event.name for event in about.policy.exits),
        "rom_address": int(about.rom_address),
        "marks": list(about.marks),
        "filters": [
            {
                "name": program.name,
                "ports": [[int(ports.first), int(ports.last)] for ports in program.ports],
                "code": encode(program.code),
                "state": program.state,
            }
            for program in about.filters
        ],
        "devices": [{"name": str(plug), "options": dict(plug.options)} for plug in about.devices],
        "check_shadow": about.check_shadow,
        "apic": about.apic,
        "ioapic_process": about.ioapic_process,
        "cpus": about.cpus,
    }


def _save_disk(about: MachineDescription, disk: BinaryIO) -> dict[str, Any]:
    """Which image it is; one that came as bytes is kept itself."""
    place = (
        {"path": str(about.disk.absolute())}
        if isinstance(about.disk, Path)
        else {"image": about.disk}
    )
    return place | {"writes": about.disk_writes.value} | disk_identity(disk)


def description_of(head: dict[str, Any], disk: Path | None, devices: Iterable[Plug]) -> Resumed:
    """The description that `save_description` told of.

    `disk` is where the disk's image is now, if it was moved; `devices` stand in for entry
    points of the same names. Raises `BadDescription` for what cannot be used here, and for a
    disk image that is not the one that was saved with.
    """
    try:
        return _description(head, disk, {str(plug): plug for plug in devices})
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, BadDescription):
            raise
        raise BadDescription(f"saved machine's description: {error!r}") from None


def _description(head: dict[str, Any], disk: Path | None, known: dict[str, Plug]) -> Resumed:
    about = head["description"]
    saved_disk = about["disk"]
    _check_types(about)
    plugs, missing = _plugs(about["devices"], known)
    description = MachineDescription(
        guest=b"",
        rom=about["rom"],
        command_line=str(about["command_line"]),
        disk=_disk(disk, saved_disk),
        disk_writes=Writes.OVERLAY if saved_disk is None else Writes(saved_disk["writes"]),
        memory=about["memory"],
        backings=tuple((str(name), int(size)) for name, size in about["backings"]),
        policy=_policy(about["policy"], about["exits"]),
        rom_address=GuestPhysical(about["rom_address"]),
        marks=tuple(str(mark) for mark in about["marks"]),
        filters=tuple(_filter(row) for row in about["filters"]),
        devices=plugs,
        check_shadow=about["check_shadow"],
        apic=about["apic"],
        ioapic_process=about["ioapic_process"],
        cpus=about["cpus"],
    )
    if disk is None and description.disk_writes is Writes.THROUGH:
        # A file that anybody may have made does not say which file is written to.
        raise BadDescription(
            "saved machine's disk is written through to: expected its image by name"
        )
    return Resumed(description, str(head["guest"]["sha256"]), missing)


def _check_types(about: dict[str, Any]) -> None:
    for name in ("apic", "ioapic_process", "check_shadow"):
        if not isinstance(about[name], bool):
            raise TypeError(f"{name} {about[name]!r}: expected true or false")
    for name in ("memory", "cpus", "rom_address"):
        if type(about[name]) is not int or about[name] < 0:
            raise TypeError(f"{name} {about[name]!r}: expected a number")
    if about["rom"] is not None and not isinstance(about["rom"], bytes):
        raise TypeError("rom: expected bytes")


def _plugs(
    rows: list[dict[str, Any]], known: dict[str, Plug]
) -> tuple[tuple[Plug, ...], tuple[str, ...]]:
    """The devices that are to be had here, and the names of the others."""
    plugs, missing = [], []
    for row in rows:
        name, options = str(row["name"]), dict(row["options"])
        try:
            plug = known[name] if name in known else plug_named(name)
        except BadDescription:
            missing.append(name)
            continue
        plugs.append(replace(plug, options=options))
    return tuple(plugs), tuple(missing)


def _policy(name: str, exits: list[str]) -> Policy:
    """The policy of this name, which may have intercepts added or taken away."""
    base = max(
        (policy for policy in POLICIES if name.startswith(policy.name)),
        key=lambda policy: len(policy.name),
        default=None,
    )
    if base is None:
        raise BadDescription(f"saved machine's policy {name!r}: there is none of this name")
    found = base.adjusted(re.findall(r"[+-][a-z_]+", name[len(base.name) :]))
    if found.name != name or sorted(event.name for event in found.exits) != sorted(exits):
        raise BadDescription(f"saved machine's policy {name!r} has other exits in this version")
    return found


def _filter(row: dict[str, Any]) -> FilterProgram:
    """A program; attaching it verifies it like any other."""
    return FilterProgram(
        str(row["name"]),
        tuple(PortRange(Port(int(first)), Port(int(last))) for first, last in row["ports"]),
        tuple(decode(row["code"])),
        bytes(row["state"]),
    )


def _disk(path: Path | None, saved: dict[str, Any] | None) -> Path | bytes | None:
    """The disk's image, if it is the one that the machine was saved with."""
    if saved is None:
        if path is not None:
            raise BadDescription(f"disk {str(path)!r}: the machine was saved without a disk")
        return None
    if path is None and "image" in saved:
        image: bytes = saved["image"]
        if not isinstance(image, bytes):
            raise TypeError("disk image: expected bytes")
        return image
    if path is None:
        path = Path(saved["path"])
    _check_disk(path, saved)
    return path


def _check_disk(path: Path, saved: dict[str, Any]) -> None:
    try:
        with path.open("rb") as file:
            found = disk_identity(file)
    except OSError as error:
        raise BadDescription(f"disk {str(path)!r}: {error.strerror or error}") from None
    for what in ("size", "sha256"):
        if found[what] != saved[what]:
            raise BadDescription(
                f"disk {str(path)!r} is not the one that the machine was saved with: "
                f"{what} {found[what]}, expected {saved[what]}"
            )
