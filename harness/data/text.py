"""`text`: the embedded pages of text, 256 px, 8 at each font size from 8 to 32 px; labels are font sizes.

Words, numbers and code are msbench's own. `pages/pages.json` says what stands on each page and how it was drawn, in DejaVu
(Bitstream Vera licence) and Liberation 2 (SIL OFL 1.1); the PNG files beside it are the set, since fonts differ by machine.
"""

from __future__ import annotations

import json
from pathlib import Path

from harness.data.dataset import Dataset, build_dataset
from harness.data.sources import FolderSource
from harness.data.types import Entry, Request
from harness.errors import MsbenchError

PAGES = Path(__file__).with_name("pages")
SIDE = 256


def open_text(request: Request) -> Dataset:
    """Open the pages. Subsets are stratified by font size.

    Raises:
        MsbenchError: a `data_dir`, the train split or another resolution is asked for.
    """
    if request.data_dir is not None or request.split != "val" or request.resolution not in (None, SIDE):
        raise MsbenchError(f"text is built in, has one split and pages of {SIDE} px: it takes none of these options")
    pages = json.loads((PAGES / "pages.json").read_text("utf-8"))["pages"]
    return build_dataset(
        request,
        [
            Entry(page["key"], f"{page['key']}.png", f"{page['size']:02} px", page["key"], text="\n".join(page["lines"]))
            for page in pages
        ],
        FolderSource(PAGES),
        resolution=SIDE,
        notes=[f"{len(pages)} drawn pages of text: no photographs, so rFID and KID say little"],
        demo=True,
        strata="font size",
    )
