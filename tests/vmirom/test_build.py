import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from rombuilder.errors import BuildError, QueueCapacityError
from vmirom.build import build


def test_build_writes_image_and_map(tmp_path: Path) -> None:
    image, map_file = tmp_path / "a.rom", tmp_path / "a.map"
    result = CliRunner().invoke(build, ["-o", str(image), "--map", str(map_file)])
    assert result.exit_code == 0
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    size = image.stat().st_size
    assert result.output == f"{image}: batching ROM, {size} bytes, sha256 {digest}\n"
    assert "queue_header" in map_file.read_text()


def test_json(tmp_path: Path) -> None:
    image = tmp_path / "a.rom"
    arguments = ["--flavour", "identity", "--calls", "needed", "-o", str(image), "--json"]
    result = CliRunner().invoke(build, arguments)
    report = json.loads(result.output)
    assert report["schema"] == "vmirom.build/1"
    assert (report["flavour"], report["calls"], report["queue"]) == ("identity", "needed", None)
    assert report["size"] == image.stat().st_size
    assert report["symbols"]["rom_start"] == 0
    assert report["sections"][0]["name"] == ".header"


def test_the_file_is_named_after_the_flavour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(build, ["--queue", "8"]).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["batching.rom"]


def test_bad_input_is_left_to_the_command() -> None:
    result = CliRunner().invoke(build, ["--queue", "0"])
    assert isinstance(result.exception, QueueCapacityError)
    result = CliRunner().invoke(build, ["-o", "/nonexistent/a.rom"])
    assert isinstance(result.exception, BuildError)
    assert str(result.exception) == "/nonexistent/a.rom: No such file or directory"
    assert CliRunner().invoke(build, ["--flavour", "other"]).exit_code == 2
