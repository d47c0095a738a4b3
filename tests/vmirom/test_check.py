import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rombuilder.errors import BuildError
from rombuilder.rom import Calls, Flavour, build_rom
from vmirom.check import check


def invoke(arguments: list[str]) -> Result:
    """The verb by itself; the options for help are the group's, and click remembers them."""
    return CliRunner().invoke(check, arguments, help_option_names=["-h", "--help"])


@pytest.fixture(name="image")
def fixture_image(tmp_path: Path) -> Path:
    path = tmp_path / "a.rom"
    path.write_bytes(build_rom(Flavour.IDENTITY, calls=Calls.NEEDED).data)
    return path


def spoil(image: Path) -> None:
    """Another licence, and the SYSEXIT's STI dropped; the byte sum as it was."""
    data = bytearray(image.read_bytes())
    at = data.index(b"GPL v2\0")
    data[at : at + 3] = b"GLP"
    at = data.index(b"\xfb\x0f\x35")
    data[at] = 0x90
    data[-1] = (data[-1] + 0xFB - 0x90) & 0xFF
    image.write_bytes(bytes(data))


def test_conformant(image: Path) -> None:
    result = invoke([str(image), "--states", "2", "--seed", "5"])
    assert result.exit_code == 0, result.output
    expected = f"{image}: conformant (2 calls at 6 load addresses, 24 runs, seed 5)\n"
    assert result.output == expected


def test_findings(image: Path) -> None:
    spoil(image)
    result = invoke([str(image), "--states", "2"])
    assert result.exit_code == 1
    assert "license: licence 'GLP v2', Linux takes only 'GPL' and 'GPL v2'\n" in result.output
    assert "interrupt-flag: SYSEXIT leaves interrupts off, image at 0xc00" in result.output
    assert "  rule    A call leaves IF as the native instruction does.\n" in result.output
    assert "/SYSEXIT/" in result.output
    assert "2 findings (2 calls at 6 load addresses" in result.output


def test_json(image: Path) -> None:
    spoil(image)
    result = invoke([str(image), "--states", "2", "--json"])
    assert result.exit_code == 1
    report = json.loads(result.output)
    assert report["schema"] == "vmirom.check/1"
    assert not report["conformant"]
    assert report["loads"][0] == 0xC00C0000
    assert {call["name"] for call in report["calls"]} == {"IRET", "SYSEXIT"}
    found = {finding["code"]: finding for finding in report["findings"]}
    assert set(found) == {"license", "interrupt-flag"}
    flag = found["interrupt-flag"]
    assert flag["call"] == "SYSEXIT"
    assert flag["load"] in report["loads"]
    assert {"EAX", "EFLAGS", "DS, ES"} <= set(flag["state"])
    assert "vmi_32.c" in flag["source"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "No such file or directory"),
        (b"hello" * 200, "not an option ROM"),
        (b"\x55\xaa\x02" + bytes(1021), "not a VMI ROM"),
    ],
)
def test_unreadable_input(tmp_path: Path, content: bytes | None, text: str) -> None:
    path = tmp_path / "a.rom"
    if content is not None:
        path.write_bytes(content)
    result = invoke([str(path)])
    assert isinstance(result.exception, BuildError)
    assert str(result.exception).startswith(f"{path}: {text}")
