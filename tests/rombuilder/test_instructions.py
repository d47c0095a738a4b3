"""Single instructions: GNU as is the judge of every encoding in use."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linker.elf_reader import read_elf
from rombuilder.assembler import assemble_text

AS = shutil.which("as") or ""
needs_as = pytest.mark.peer("as")

CODE_32 = """
push %ds; pop %ds; push %es; pop %es; push %fs; pop %fs; push %gs; push %ss; pop %ss; push %cs
pushl %ds; popl %ds; iret; iretl; iretw; pushf; popf; pushfl; popfl; pusha; popa; pushal; popal
lret; lretl; lret $4; ret; ret $8; leave; hlt; cli; sti; cld; std; nop; ud2; int $0x80; int3; into
cpuid; rdtsc; rdmsr; wrmsr; rdpmc; wbinvd; invd; clts; sysenter; sysexit
invlpg (%eax); invlpg 4(%eax,%ecx,4); lgdt (%eax); lidt (%eax); sgdt (%eax); sidt (%eax)
lldt %ax; ltr %ax; lldt (%eax); sldt %ax; sldt %eax; str %ax; str %eax; lmsw %ax; smsw %ax
mov %cr0,%eax; mov %eax,%cr0; mov %eax,%cr3; mov %cr4,%ecx; mov %eax,%cr2; mov %db7,%eax
mov %eax,%dr0; mov %eax,%ds; mov %ax,%ds; movw %ax,%ss; mov %ds,%eax; mov %ds,%ax
mov %ds,(%eax); mov (%eax),%ds; mov %fs:4,%eax; mov %fs:(%eax),%ecx; mov %cs:4(%eax,%edx,8),%ecx
movl $5,(%eax); movl $5,0x12345678; mov 0x12345678,%eax; mov %eax,0x12345678; mov 0xfee00300,%ecx
movb 0x12345678,%al; movzbl %al,%eax; movzwl (%eax),%ecx; movsbl %al,%eax; movzx %al,%eax
cwtl; cltd; cbtw; cwtd; lea 4(%eax),%ecx; lea (,%eax,8),%ecx; lea 0x1234(%ebx,%ecx,2),%edx
xchg %eax,%ebx; xchg %eax,(%ebx); xadd %eax,(%ebx); lock xadd %eax,(%ebx); lock; incl (%eax)
lock cmpxchg8b (%eax); bts %eax,(%ecx); btsl $3,(%ecx); bt %eax,%ecx; bsf %eax,%ecx; bsr %eax,%ecx
inc %eax; decl 4(%eax); incb (%eax); add $1,%eax; add $0x1000,%eax; add $-1,%eax; addl $1,(%eax)
addl $0x12345,(%eax); cmp $0,%eax; cmpb $0,(%eax); cmpw $0x1234,(%eax); test $0x200,%eax
testl $0x200,(%eax); testb $1,4(%esp); and $0xfffff000,%eax; and $-4096,%eax; andl $~4095,%ecx
or $0x80000000,%eax; xor %eax,%eax; not %eax; neg %ecx; mull %ecx; imul $5,%ecx,%eax; divl %ecx
shl $4,%eax; shl %eax; shr $12,%eax; shr %cl,%eax; sar $31,%eax; shld $4,%eax,%edx
shrd $4,%eax,%edx; push %eax; pushl 4(%esp); popl 4(%esp); push $1; push $0x1234; push $-1
push $0xffffffff; pushw $1
call *%eax; call *4(%eax); jmp *%eax; jmp *4(,%eax,4); jmp *0x12345678; ljmp *(%eax); lcall *(%eax)
ljmp $0x10, $0x123456; lcall $8, $0; ljmpl $8, $4; ljmpw $8, $4
in $0x60,%al; in %dx,%al; in %dx,%eax; inw %dx,%ax; inb (%dx),%al; out %al,$0x80; outl %eax,%dx
rep insb; rep insl; rep insw; rep outsw; repne scasw
lock addw $1,(%eax); fs movsw; rep outsb; rep outsl; rep movsl; rep stosl; repe cmpsb; repne scasb
lodsl; xlat
sete %al; setb (%eax); cmove %ecx,%eax; bswap %eax; lahf; sahf; clc; stc; cmc; pause; rep nop
fninit; fwait; fnsave (%eax); fxrstor (%eax); fnstsw %ax; movl %gs:0x14,%eax
les (%eax),%ecx; lss (%eax),%esp; arpl %ax,(%ecx); lar %ax,%eax; lar %ecx,%eax; lsl %ax,%eax
verr %ax; vmcall; vmmcall; vmrun; monitor; mwait; mov $-1,%eax; movw $5,(%eax); enter $8,$0
cs mov (%eax),%ecx; gs; mov (%eax),%ecx; mov -4(%ebp),%eax; mov 0xfffffffc(%ebp),%eax
mov %eax,0xfffff000(%ecx); mov (%esp),%eax; adc $0,%edx; sbb %eax,%eax; data: jecxz data; loop data
jcxz data; jmp data; call data; jnbe data; loopne data
"""

CODE_16 = """
mov $0x1234,%ax; mov %ax,%ds; push %ds; pop %es; push %ax; pushl %eax; pushf; pusha; iret; lret; ret
mov $0x12345678,%eax; movl $5,(%bx); mov (%bx,%si),%ax; mov 4(%bp),%ax; mov 0x1234,%ax
mov %cs:0x1234,%ax; movb $0xe,%ah; int $0x10; lodsb; stosw; rep movsw; cld; test %al,%al
xor %ax,%ax
xor %eax,%eax; shl $4,%eax; movzwl %ax,%eax; inb %dx,%al; inl %dx,%eax; outl %eax,%dx; outb %al,%dx
lgdt 0x1234; call *%ax; jmp *(%bx); push $0x1234; pushl $0x12345678; add $1,%sp; mov (%eax),%cx
mov 4(%esp),%eax; mov %cr0,%eax; mov %eax,%cr0; lea 4(%si),%di; cmp $0x20,%al; les (%bx),%di
hlt; ljmp $0x10, $0x1234; ljmpl $0x10, $0x123456; data: jcxz data; jecxz data; jmp data; call data
"""


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.replace("\n", ";").split(";") if line.strip()]


def gnu(folder: Path, statements: list[str], mode: int) -> list[bytes]:
    """Each statement assembled in a section of its own."""
    body = "".join(
        f'.section .t{index},"ax"\n.code{mode}\n{text}\n' for index, text in enumerate(statements)
    )
    (folder / "t.s").write_text(body)
    command = [AS, "--32", "-o", "t.o", "t.s"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    obj = read_elf(folder / "t.o")
    return [obj.section(f".t{index}").data for index in range(len(statements))]


def ours(statement: str, mode: int) -> bytes:
    return assemble_text(f".code{mode}\n{statement}").section(".text").data


@needs_as
@pytest.mark.parametrize(("mode", "code"), [(32, CODE_32), (16, CODE_16)])
def test_encodings_are_those_of_gnu_as(tmp_path: Path, mode: int, code: str) -> None:
    # A label and what uses it must stay together.
    statements = [
        f"data: {text.removeprefix('data: ')}" if text.endswith(" data") else text
        for text in lines(code)
    ]
    statements = [text.replace("data: ", "1: ").replace(" data", " 1b") for text in statements]
    found = {text: ours(text, mode).hex(" ") for text in statements}
    expected = {
        text: data.hex(" ")
        for text, data in zip(statements, gnu(tmp_path, statements, mode), strict=True)
    }
    assert found == expected


OPERATORS = ["+", "-", "*", "&", "|", "^", "==", "!=", "<", ">", "<=", ">=", "&&", "||"]
EXPRESSIONS = st.recursive(
    st.integers(0, 1000).map(str) | st.integers(0, 0xFFFF).map(hex),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(OPERATORS), inner).map(" ".join),
        inner.map(lambda text: f"({text})"),
        st.tuples(st.sampled_from("-~"), inner).map("".join),
    ),
    max_leaves=6,
)


@needs_as
@settings(max_examples=15, deadline=None)
@given(expressions=st.lists(EXPRESSIONS, min_size=20, max_size=40))
def test_expressions_are_those_of_gnu_as(
    tmp_path_factory: pytest.TempPathFactory, expressions: list[str]
) -> None:
    # Masked to 32 bits, in which both wrap or complain alike.
    statements = [f".long ({text}) & 0xffffffff" for text in expressions]
    expected = gnu(tmp_path_factory.mktemp("as"), statements, 32)
    assert {s: ours(s, 32).hex() for s in statements} == {
        s: data.hex() for s, data in zip(statements, expected, strict=True)
    }


def test_a_field_is_as_wide_as_its_operand() -> None:
    obj = assemble_text("movb $far, %al\n addw $far, (%eax)\n and $far, %ecx\n push $far\n")
    kinds = [(r.offset, r.kind.width) for r in obj.section(".text").relocations]
    assert kinds == [(1, 1), (5, 2), (9, 4), (14, 4)]


def test_two_fields_in_one_instruction() -> None:
    obj = assemble_text("movl $one + 1, two + 2(%eax)\n ljmp $three, $four")
    found = [(r.offset, r.symbol.name, r.addend) for r in obj.section(".text").relocations]
    assert sorted(found) == [(2, "two", 2), (6, "one", 1), (11, "four", 0), (15, "three", 0)]
