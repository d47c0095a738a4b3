"""The result file: one SQLite database, its tables, and what each column means.

The file carries `APPLICATION_ID` in SQLite's application_id and `VERSION` in its
user_version (https://sqlite.org/pragma.html). A table that is added keeps the number;
anything that makes an older reader wrong raises it. The comment behind a column is its
documentation: docs/reference/results.md is made from it.
"""

__all__ = ["APPLICATION_ID", "RUN_COLUMNS", "TABLES", "VERSION"]

APPLICATION_ID = int.from_bytes(b"VMIr", "big")
VERSION = 1

RUNS = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,         -- numbers the row in this file
    key TEXT NOT NULL UNIQUE,       -- SHA-256 of case, version, code, core and repetition: nothing is done twice
    suite TEXT NOT NULL,            -- which suite asked for the run
    guest TEXT NOT NULL,            -- the guest's name
    guest_sha256 TEXT NOT NULL,     -- of the guest's image
    command_line TEXT NOT NULL,     -- what the guest was told
    initrd_sha256 TEXT,             -- of the initial RAM disk
    disk_sha256 TEXT,               -- of the disk's image
    rom TEXT NOT NULL,              -- `none`, the flavour, or a file's name
    rom_sha256 TEXT,                -- of the ROM's image
    queue INTEGER,                  -- capacity in records
    calls TEXT,                     -- which calls the ROM takes over: `all` or `needed`
    visibility TEXT,                -- when the ROM tells of changes: `tlb` or `strict`
    policy TEXT NOT NULL,           -- the policy, with its changes
    engine TEXT NOT NULL,           -- what executed the guest
    memory INTEGER NOT NULL,        -- of the guest, in bytes
    cpus INTEGER NOT NULL,          -- how many virtual CPUs
    variant TEXT NOT NULL,          -- what the machine has beyond the ordinary; `plain` for nothing
    repetition INTEGER NOT NULL,    -- 0 for the first
    version TEXT NOT NULL,          -- of vmirom
    code TEXT NOT NULL,             -- SHA-256 over the sources that count: counts are compared within one code
    core TEXT NOT NULL,             -- `compiled` or `interpreted`: same counts, other times
    host TEXT NOT NULL,             -- JSON object: the machine that ran it
    outcome TEXT NOT NULL,          -- how the run ended
    detail TEXT NOT NULL,           -- the same for people
    counted INTEGER NOT NULL,       -- 0 where the engine counts no exits: the next columns, down to queue_full, are null
    exits INTEGER,                  -- all exits
    exits_light INTEGER,            -- served in the core
    exits_heavy INTEGER,            -- served by a device
    instructions INTEGER,           -- guest instructions, the ROM's included
    rom_instructions INTEGER,       -- those of the ROM
    virtual_ns INTEGER,             -- virtual time at the end, in nanoseconds
    updates INTEGER,                -- page-table entries that went through the queue
    notices INTEGER,                -- all records
    flushes INTEGER,                -- drains that found any
    largest_batch INTEGER,          -- the most records in one drain
    hypercalls INTEGER,             -- rings of the doorbell
    forced INTEGER,                 -- rings that the interface demands: forced visibility points; null where places overflowed
    queue_full INTEGER,             -- rings for want of room in the queue; null as above
    cpu_seconds REAL NOT NULL,      -- CPU time of the run alone, on this host
    wall_seconds REAL NOT NULL,     -- time on the clock of the run alone
    started_at TEXT NOT NULL        -- ISO 8601, UTC
)
"""

EXITS = """
CREATE TABLE exits (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE, -- the run's id
    reason TEXT NOT NULL,           -- the reason; those without exits are left out
    light INTEGER NOT NULL,         -- served in the core
    heavy INTEGER NOT NULL,         -- served by a device
    PRIMARY KEY (run, reason)
) WITHOUT ROWID
"""

PLACES = """
CREATE TABLE places (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE, -- the run's id
    rank INTEGER NOT NULL,          -- 0 for the most frequent place
    reason TEXT NOT NULL,           -- the reason
    detail TEXT NOT NULL,           -- port, size and direction; CR, table or function
    eip INTEGER NOT NULL,           -- the instruction's address
    count INTEGER NOT NULL,         -- exits there
    PRIMARY KEY (run, rank)
) WITHOUT ROWID
"""

MEASURES = """
CREATE TABLE measures (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE, -- the run's id
    name TEXT NOT NULL,             -- a figure of the suite's own, such as `sectors`
    value REAL NOT NULL,            -- its value
    PRIMARY KEY (run, name)
) WITHOUT ROWID
"""

TABLES = {"runs": RUNS, "exits": EXITS, "places": PLACES, "measures": MEASURES}

RUN_COLUMNS = tuple(
    line.split()[0] for line in RUNS.splitlines() if line.startswith("    ") and "--" in line
)
