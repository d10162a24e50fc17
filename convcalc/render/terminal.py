"""What is used of rich, and rich without three modules that an answer does not use, a third of its time to load."""

from __future__ import annotations

from convcalc.later import loaded_later

__all__ = ["Console", "Segment", "Segments", "Style", "Text", "cell_len"]

with loaded_later({"ast": ("literal_eval",), "inspect": ("isclass",), "pickle": ("dumps", "loads")}):
    from rich.cells import cell_len
    from rich.console import Console
    from rich.segment import Segment, Segments
    from rich.style import Style
    from rich.text import Text
