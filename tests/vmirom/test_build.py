import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rombuilder.errors import BuildError, QueueCapacityError
from rombuilder.inspect import inspect_rom
from rombuilder.rom import Flavour, Visibility, build_rom
from vmi.header import Pcir, RomHeader
from vmi.relocation import RelocationKind
from vmirom.build import build


def invoke(arguments: list[str]) -> Result:
    """The verb by itself; the options for help are the group's, and click remembers them."""
    return CliRunner().invoke(build, arguments, help_option_names=["-h", "--help"])


def test_build_writes_image_and_map(tmp_path: Path) -> None:
    image, map_file = tmp_path / "a.rom", tmp_path / "a.map"
    result = invoke(["-o", str(image), "--map", str(map_file)])
    assert result.exit_code == 0
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    size = image.stat().st_size
    assert result.output == f"{image}: batching ROM, {size} bytes, sha256 {digest}\n"
    assert "queue_header" in map_file.read_text()


def test_json(tmp_path: Path) -> None:
    image = tmp_path / "a.rom"
    arguments = ["--flavour", "identity", "--calls", "needed", "-o", str(image), "--json"]
    result = invoke(arguments)
    report = json.loads(result.output)
    assert report["schema"] == "vmirom.build/1"
    assert (report["flavour"], report["calls"], report["queue"]) == ("identity", "needed", None)
    assert report["visibility"] is None
    assert report["size"] == image.stat().st_size
    assert report["symbols"]["rom_start"] == 0
    assert report["sections"][0]["name"] == ".header"


def test_the_file_is_named_after_the_flavour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke(["--queue", "8"]).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["batching.rom"]


@pytest.mark.parametrize("visibility", list(Visibility))
def test_visibility(tmp_path: Path, visibility: Visibility) -> None:
    image = tmp_path / "a.rom"
    arguments = ["--visibility", visibility.value, "-o", str(image), "--json"]
    result = invoke(arguments)
    assert json.loads(result.output)["visibility"] == visibility.value
    assert image.read_bytes() == build_rom(visibility=visibility).data


def test_bad_input_is_left_to_the_command() -> None:
    result = invoke(["--queue", "0"])
    assert isinstance(result.exception, QueueCapacityError)
    result = invoke(["-o", "/nonexistent/a.rom"])
    assert isinstance(result.exception, BuildError)
    assert str(result.exception) == "/nonexistent/a.rom: No such file or directory"
    assert invoke(["--flavour", "other"]).exit_code == 2


def test_elf_at_a_base(tmp_path: Path) -> None:
    elf = tmp_path / "a.elf"
    image = tmp_path / "a.rom"
    arguments = ["-o", str(image), "--elf", str(elf), "--base", "0xC00C8000"]
    assert invoke(arguments).exit_code == 0
    assert elf.read_bytes() == build_rom(Flavour.BATCHING).elf(0xC00C8000)
    for base in ("here", "-1", "0x100000000"):
        result = invoke(["--base", base])
        assert result.exit_code == 2
        assert repr(base) in result.output


def test_pci_device(tmp_path: Path) -> None:
    image = tmp_path / "a.rom"
    arguments = ["-o", str(image), "--pci", "8086:100E", "--json"]
    result = invoke(arguments)
    assert json.loads(result.output)["pci"] == "8086:100e"
    pcir = Pcir.parse(image.read_bytes(), RomHeader.parse(image.read_bytes()).pcir_offset)
    assert (pcir.vendor, pcir.device) == (0x8086, 0x100E)
    for bad in ("8086", "8086:10000", "e1000:x"):
        result = invoke(["--pci", bad])
        assert result.exit_code == 2
        assert f"{bad!r}: expected two hex numbers" in result.output


def test_apic_base_offers_the_apic_calls(tmp_path: Path) -> None:
    rom = tmp_path / "apic.rom"

    def offered(*options: str) -> set[int]:
        assert invoke(["--flavour", "identity", "-o", str(rom), *options]).exit_code == 0
        calls = inspect_rom(rom.read_bytes()).calls
        return {call.number for call in calls if call.kind is not RelocationKind.NONE}

    assert offered("--apic-base", "0xFFFFB000") - offered() == {63, 64}
