from vmm.devices.console import DEBUG_PORT, DebugConsole


def test_lines_are_handed_on_when_they_end() -> None:
    lines: list[str] = []
    console = DebugConsole(lines.append)
    for byte in b"one\ntwo\n\nthr":
        console.write(DEBUG_PORT, 1, byte)
    assert lines == ["one", "two", ""]
    assert console.unfinished == "thr"


def test_every_byte_is_a_character() -> None:
    console = DebugConsole(lambda _line: None)
    console.write(DEBUG_PORT, 1, 0xFF)
    console.write(DEBUG_PORT, 4, 0x12345641)
    assert console.unfinished == "\xffA"


def test_the_port_says_what_it_is() -> None:
    assert DebugConsole(lambda _line: None).read(DEBUG_PORT, 1) == 0xE9
