"""Units: check micrometres per pixel (mpp), format numbers, bytes and durations. Pure.

mpp is the length of one pixel's side in micrometres. It is never guessed and never snapped to a magnification.
"""

MIN_MPP = 0.05
"""No light microscope scans finer (Abbe limit about 0.2 um; 100x oil scans at about 0.1). Our choice."""
MAX_MPP = 5.0
"""Anything coarser is a macro image. Our choice."""
MPP_AT_1X = 10.0
"""Micrometres per pixel at a nominal 1x objective: 20x is 0.5, 40x is 0.25 (vendor convention). Used only for
attributes that other tools expect (`level0_magnification`) and to warn of an odd mpp."""
MPP_TOLERANCE = 0.01
"""Within 1 % of a model's own resolution is at that resolution. Our choice."""


def check_mpp(mpp: float, source: str) -> float:
    """Return `mpp` (um/px) if it is plausible.

    Raises:
        ValueError: it is not finite, below `MIN_MPP` or above `MAX_MPP`; names `source`.
    """
    if not MIN_MPP <= mpp <= MAX_MPP:  # NaN fails as well
        raise ValueError(f"implausible mpp {mpp:g} from {source}: must be {MIN_MPP:g} to {MAX_MPP:g} um/px")
    return mpp


def resolution_note(model: str, trained_mpp: float | None, mpp: float, what: str) -> str:
    """A note that a model was trained at another resolution than `mpp` (um/px), that of `what`; empty if it was not, or
    if nobody knows (`None` or 0).
    """
    if not trained_mpp or abs(trained_mpp / mpp - 1) <= MPP_TOLERANCE:
        return ""
    return f"note: {model} was trained at {trained_mpp:g} um/px, {what} {mpp:g}"


def magnification(mpp: float) -> float:
    """Nominal objective magnification of `mpp` (um/px), not rounded; for attributes that other tools expect."""
    return MPP_AT_1X / mpp


def format_area(mm2: float) -> str:
    """An area as people read it, mm2: 1,203.5 or 0.042."""
    return f"{mm2:,.1f}" if mm2 == 0 or mm2 >= 0.95 else f"{mm2:.2g}"


def format_digits(value: float, digits: int = 3) -> str:
    """A number of at least 0 with so many significant digits, never with the exponent of a large one: 5.3 or 1,235."""
    return f"{value:,.0f}" if value >= 10**digits - 0.5 else f"{value:.{digits}g}"


def format_share(share: float, digits: int = 0) -> str:
    """A share in percent with so many decimals, or with two significant digits where these would leave fewer: 27 %,
    1.9 % and 0.053 %, without the blank. A small student's share of a giga-scale teacher is not 0.
    """
    percent = 100 * share
    return f"{percent:.{digits}f}%" if percent == 0 or percent >= 10 ** (1 - digits) else f"{percent:.2g}%"


def format_bytes(num_bytes: float) -> str:
    """Format bytes in decimal units with three digits: 999 B, 1.23 kB, 45.6 MB, 789 GB."""
    value, units = float(num_bytes), ["B", "kB", "MB", "GB", "TB", "PB"]
    for unit in units:
        if value < 999.5 or unit == units[-1]:
            break
        value /= 1000
    if unit == "B" or value >= 99.95:
        return f"{value:.0f} {unit}"
    return f"{value:.1f} {unit}" if value >= 9.995 else f"{value:.2f} {unit}"


def format_seconds(seconds: float) -> str:
    """Format a duration: 0.4 s, 12 s, 3 min 05 s, 2 h 07 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
