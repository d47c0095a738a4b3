import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rombuilder.errors import BuildError
from rombuilder.rom import Flavour, build_rom
from vmirom.inspect import inspect


def invoke(arguments: list[str]) -> Result:
    """The verb by itself; the options for help are the group's, and click remembers them."""
    return CliRunner().invoke(inspect, arguments, help_option_names=["-h", "--help"])


@pytest.fixture(name="image")
def fixture_image(tmp_path: Path) -> Path:
    path = tmp_path / "a.rom"
    path.write_bytes(build_rom(Flavour.IDENTITY).data)
    return path


def test_tables(image: Path) -> None:
    result = invoke([str(image)])
    assert result.exit_code == 0
    for text in ("15ad:0801", "GPL v2", "IRET", "JUMP_REL", "no defects"):
        assert text in result.output


def test_json(image: Path) -> None:
    result = invoke([str(image), "--json"])
    report = json.loads(result.output)
    assert report["schema"] == "vmirom.inspect/1"
    assert report["defects"] == []
    assert report["vmi"]["api_version"] == [3, 0]
    assert report["vmi"]["calls"][33]["kind"] == "JUMP_REL"
    assert report["pcir"]["vendor"] == 0x15AD


def test_defects_are_status_1(image: Path) -> None:
    whole = image.read_bytes()
    image.write_bytes(whole[:512])
    result = invoke([str(image)])
    assert result.exit_code == 1
    assert f"the header claims {len(whole)} bytes, the file has 512 [truncated]" in result.output
    report = json.loads(invoke([str(image), "--json"]).output)
    assert report["defects"][0]["code"] == "truncated"


def test_what_is_no_rom_is_left_to_the_command(tmp_path: Path) -> None:
    path = tmp_path / "a.rom"
    result = invoke([str(path)])
    assert isinstance(result.exception, BuildError)
    assert str(result.exception) == f"{path}: No such file or directory"
    path.write_bytes(b"hello" * 100)
    result = invoke([str(path)])
    assert "not an option ROM" in str(result.exception)


def test_code_of_the_calls(image: Path) -> None:
    result = invoke([str(image), "--disassemble"])
    assert result.exit_code == 0
    assert "<GetCR2>:" in result.output
    assert "movl %cr2, %eax" in result.output
    elf = image.with_suffix(".elf")
    elf.write_bytes(build_rom(Flavour.IDENTITY).elf(0xC00C8000))
    arguments = [str(image), "--disassemble", "--symbols", str(elf), "--json"]
    report = json.loads(invoke(arguments).output)
    (routine,) = [one for one in report["code"] if "GetCR2" in one["names"]]
    assert routine["names"] == ["GetCR2", "native_GetCR2"]
    assert routine["instructions"][0]["code"] == "0f20d0"
    assert report["images"][0]["kind"] == "PC-AT"
    assert report["images"][0]["pcir"]["vendor"] == 0x15AD
