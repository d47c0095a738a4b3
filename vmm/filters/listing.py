"""Instructions as text, in the syntax that LLVM and the GNU assembler read and write."""

from vmm.filters.isa import (
    STATE_SOURCE,
    AluOp,
    AtomicOp,
    Instruction,
    InstructionClass,
    JumpOp,
    Mode,
)

__all__ = ["ALU_SIGNS", "ATOMIC_NAMES", "JUMP_SIGNS", "text_of"]

ALU_SIGNS = {
    AluOp.ADD: "+",
    AluOp.SUB: "-",
    AluOp.MUL: "*",
    AluOp.DIV: "/",
    AluOp.OR: "|",
    AluOp.AND: "&",
    AluOp.LSH: "<<",
    AluOp.RSH: ">>",
    AluOp.MOD: "%",
    AluOp.XOR: "^",
    AluOp.ARSH: "s>>",
}
JUMP_SIGNS = {
    JumpOp.JEQ: "==",
    JumpOp.JGT: ">",
    JumpOp.JGE: ">=",
    JumpOp.JSET: "&",
    JumpOp.JNE: "!=",
    JumpOp.JSGT: "s>",
    JumpOp.JSGE: "s>=",
    JumpOp.JLT: "<",
    JumpOp.JLE: "<=",
    JumpOp.JSLT: "s<",
    JumpOp.JSLE: "s<=",
}
ATOMIC_NAMES = {
    AtomicOp.ADD: ("+", "add"),
    AtomicOp.OR: ("|", "or"),
    AtomicOp.AND: ("&", "and"),
    AtomicOp.XOR: ("^", "xor"),
}


def text_of(one: Instruction, index: int) -> str:
    """One instruction at its place; jumps name the index they go to."""
    if one.is_arithmetic:
        return _arithmetic(one)
    if one.is_jump:
        return _jump(one, index)
    return _memory(one)


def _arithmetic(one: Instruction) -> str:
    wide = one.kind == InstructionClass.ALU64
    letter = "r" if wide else "w"
    dst, operation = f"{letter}{one.dst}", AluOp(one.operation)
    if operation == AluOp.END:
        order = "bswap" if wide else ("be" if one.from_register else "le")
        return f"r{one.dst} = {order}{one.imm} r{one.dst}"
    if operation == AluOp.NEG:
        return f"{dst} = -{dst}"
    source = f"{letter}{one.src}" if one.from_register else str(one.imm)
    if operation == AluOp.MOV:
        return f"{dst} = {f'(s{one.offset}) ' if one.offset else ''}{source}"
    signed = "s" if operation in {AluOp.DIV, AluOp.MOD} and one.offset else ""
    return f"{dst} {signed}{ALU_SIGNS[operation]}= {source}"


def _jump(one: Instruction, index: int) -> str:
    operation, target = JumpOp(one.operation), one.target(index)
    if operation == JumpOp.EXIT:
        return "exit"
    if operation == JumpOp.CALL:
        return f"call {target}"
    if operation == JumpOp.JA:
        return f"goto{'l' if one.kind == InstructionClass.JMP32 else ''} {target}"
    letter = "w" if one.kind == InstructionClass.JMP32 else "r"
    source = f"{letter}{one.src}" if one.from_register else str(one.imm)
    return f"if {letter}{one.dst} {JUMP_SIGNS[operation]} {source} goto {target}"


def _memory(one: Instruction) -> str:
    if one.is_wide:
        if one.src == STATE_SOURCE:
            return f"r{one.dst} = state + {one.imm >> 32} ll"
        return f"r{one.dst} = {one.imm:#x} ll"
    base = one.src if one.kind == InstructionClass.LDX else one.dst
    sign = "s" if one.mode == Mode.MEMSX else "u"
    kind = f"({sign}{8 * one.width} *)"
    place = f"(r{base} {'-' if one.offset < 0 else '+'} {abs(one.offset)})"
    if one.kind == InstructionClass.LDX:
        return f"r{one.dst} = *{kind}{place}"
    if one.mode == Mode.ATOMIC:
        return _atomic(one, kind, place)
    source = str(one.imm) if one.kind == InstructionClass.ST else f"r{one.src}"
    return f"*{kind}{place} = {source}"


def _atomic(one: Instruction, kind: str, place: str) -> str:
    letter, narrow = ("r", "64") if one.width == 8 else ("w", "32_32")
    source = f"{letter}{one.src}"
    if one.imm == AtomicOp.XCHG:
        return f"{source} = xchg{'_64' if one.width == 8 else narrow}({place[1:-1]}, {source})"
    if one.imm == AtomicOp.CMPXCHG:
        suffix = "_64" if one.width == 8 else narrow
        return f"{letter}0 = cmpxchg{suffix}({place[1:-1]}, {letter}0, {source})"
    sign, name = ATOMIC_NAMES[AtomicOp(one.imm & ~AtomicOp.FETCH)]
    if one.imm & AtomicOp.FETCH:
        return f"{source} = atomic_fetch_{name}({kind}{place}, {source})"
    return f"lock *{kind}{place} {sign}= {source}"
