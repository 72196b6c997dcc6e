"""Documents that tests read: small PDFs and archives, made by hand so that each byte is known."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import MappingProxyType

import pytest

from tests.drive import Drive
from tests.workers.ingest.shelf import Shelf
from workers.ingest.sandbox import Sandbox

MakePdf = Callable[..., bytes]
MakeZip = Callable[[Mapping[str, bytes]], bytes]


@pytest.fixture(scope="session")
async def sandbox() -> AsyncIterator[Sandbox]:
    """A sandbox with one warm child, shared by all tests."""
    async with Sandbox.open(children=1) as opened:
        yield opened


@pytest.fixture(scope="session")
def make_pdf() -> MakePdf:
    """Makes a PDF from texts or raw streams, one per page; with an outline, a title, other filters by page."""

    def make(
        pages: Sequence[str],
        *,
        outline: Sequence[str] = (),
        title: str = "",
        streams: Sequence[bytes] | None = None,
        filters: Mapping[int, str] = MappingProxyType({}),
    ) -> bytes:
        contents = streams or [
            zlib.compress(f"BT /F 12 Tf 72 700 Td ({text}) Tj ET".encode()) for text in pages
        ]
        first_page, first_outline = 4, 4 + 2 * len(contents)
        kids = " ".join(f"{first_page + 2 * at} 0 R" for at in range(len(contents)))
        objects = [
            f"<< /Type /Catalog /Pages 2 0 R {f'/Outlines {first_outline} 0 R' if outline else ''} >>".encode(),
            f"<< /Type /Pages /Kids [{kids}] /Count {len(contents)} >>".encode(),
            b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        ]
        for at, stream in enumerate(contents):
            objects.append(
                f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents {first_page + 2 * at + 1} 0 R "
                "/Resources << /Font << /F 3 0 R >> >> >>".encode()
            )
            head = f"<< /Length {len(stream)} /Filter /{filters.get(at + 1, 'FlateDecode')} >>\nstream\n".encode()
            objects.append(head + stream + b"\nendstream")
        if outline:
            last = first_outline + len(outline)
            objects.append(
                f"<< /First {first_outline + 1} 0 R /Last {last} 0 R /Count {len(outline)} >>".encode()
            )
            for at, text in enumerate(outline):
                following = f"/Next {first_outline + at + 2} 0 R" if at + 1 < len(outline) else ""
                objects.append(
                    f"<< /Title ({text}) /Parent {first_outline} 0 R /Dest [{first_page + 2 * at} 0 R /Fit] "
                    f"{following} >>".encode()
                )
        if title:
            objects.append(f"<< /Title ({title}) >>".encode())
        return _assemble(objects, info=len(objects) if title else 0)

    return make


def _assemble(objects: Sequence[bytes], *, info: int) -> bytes:
    out = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    table = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{offset:010d} 00000 n \n".encode() for offset in offsets)
    extra = f"/Info {info} 0 R" if info else ""
    out += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {extra} >>\nstartxref\n{table}\n%%EOF".encode()
    return bytes(out)


@pytest.fixture(scope="session")
def make_zip() -> MakeZip:
    """Makes a ZIP archive of named parts."""

    def make(parts: Mapping[str, bytes]) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in parts.items():
                archive.writestr(name, content)
        return out.getvalue()

    return make


@pytest.fixture
async def shelf(drive: Drive, tenant: str) -> Shelf:
    """Documents of a tenant of the test's own, handled by the real wing."""
    await drive.use("ingest")
    return Shelf(drive, tenant)
