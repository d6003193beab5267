"""The counts of one op at one size beside its least traffic, and what an H100 could at best make of them."""

from dataclasses import dataclass

from bench.ptx.counts import SECTOR, Counts

BANDWIDTH = 3.35e12  # bytes a second, HBM3 of an H100 SXM
PROCESSORS, SLOTS, CLOCK = 132, 4, 1.75e9  # each processor issues four warp instructions a clock


@dataclass(frozen=True)
class Row:
    """One call of an op, forward or backward: name, elements of its image, least traffic in bytes, counts of all its
    launches, and how many they are. warps: of its largest launch at 64x64 and eight samples."""

    name: str
    elements: int
    least: int
    counts: Counts
    kernels: int
    warps: int

    @property
    def sector_ratio(self) -> float:
        """Sectors touched times 32, over the least traffic."""
        return self.counts.sectors * SECTOR / self.least

    @property
    def overfetch(self) -> float:
        """Sectors touched times 32, over the bytes that the launches touch at all: the waste of their accesses."""
        return self.counts.sectors * SECTOR / self.counts.distinct_bytes

    @property
    def byte_bound(self) -> float:
        """Seconds that the sectors take to move."""
        return self.counts.sectors * SECTOR / BANDWIDTH

    @property
    def instruction_bound(self) -> float:
        """Seconds that the instructions take to issue, if every slot issues one each clock."""
        return self.counts.issued / (PROCESSORS * SLOTS * CLOCK)

    @property
    def instructions_per_element(self) -> float:
        return self.counts.lane_instructions / self.elements

    @property
    def conflicts(self) -> float:
        """Wavefronts of shared memory per one that is needed; 1 means no bank conflict."""
        return self.counts.wavefronts / self.counts.least_wavefronts if self.counts.least_wavefronts else 1.0

    @property
    def warps_per_processor(self) -> float:
        return self.warps / PROCESSORS


HEAD = ["case", "launches", "instr/elt", "int64 %", "requests", "sect/req", "sect·32/least", "sect·32/touched",
        "conflicts", "µs by bytes", "µs by instr", "instr/bytes", "warps/SM"]  # fmt: skip


def cells(row: Row) -> list[str]:
    counts = row.counts
    return [
        row.name,
        str(row.kernels),
        f"{row.instructions_per_element:.0f}",
        f"{100 * counts.warp_instructions['integer 64'] / counts.issued:.0f}",
        str(counts.requests),
        f"{counts.sectors / counts.requests:.1f}",
        f"{row.sector_ratio:.2f}",
        f"{row.overfetch:.2f}",
        f"{row.conflicts:.2f}",
        f"{1e6 * row.byte_bound:.2f}",
        f"{1e6 * row.instruction_bound:.2f}",
        f"{row.instruction_bound / row.byte_bound:.2f}",
        f"{row.warps_per_processor:.1f}",
    ]


def table(rows: list[Row]) -> str:
    lines = [HEAD, *map(cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    text = [
        "  ".join(cell.ljust(widths[0]) if i == 0 else cell.rjust(widths[i]) for i, cell in enumerate(line)).rstrip()
        for line in lines
    ]
    return "\n".join(text)


def kinds(rows: list[Row]) -> str:
    """Share of each kind of instruction, in per cent of the warp instructions."""
    names = sorted({kind for row in rows for kind in row.counts.warp_instructions})
    width = max(len(row.name) for row in rows)
    lines = ["case".ljust(width) + "".join(name.rjust(12) for name in names)]
    for row in rows:
        shares = (100 * row.counts.warp_instructions[name] / row.counts.issued for name in names)
        lines.append(row.name.ljust(width) + "".join(f"{share:12.1f}" for share in shares))
    return "\n".join(lines)
