from __future__ import annotations

import importlib.util
import struct
from collections.abc import Callable, Mapping

import pytest

from schemas.errors import Misconfigured, Unreadable
from workers.ingest.media import source
from workers.ingest.read import read
from workers.ingest.readers.office import check_archive

MakeZip = Callable[[Mapping[str, bytes]], bytes]
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
OFFICE_INSTALLED = importlib.util.find_spec("markitdown") is not None

RELATIONS = (
    '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
    'Target="word/document.xml"/></Relationships>'
)
DOCUMENT = (
    '<?xml version="1.0"?><w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>'
    '<w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:t>A heading</w:t></w:r></w:p>'
    "<w:p><w:r><w:t>A paragraph.</w:t></w:r></w:p></w:body></w:document>"
)


@pytest.fixture
def docx(make_zip: MakeZip) -> bytes:
    """A small Word file."""
    return make_zip({"_rels/.rels": RELATIONS.encode(), "word/document.xml": DOCUMENT.encode()})


def test_an_office_file_is_read_with_the_extra_and_names_it_without(docx: bytes) -> None:
    """With the extra the headings survive; without it the error says what to install."""
    if OFFICE_INSTALLED:
        blocks = read(source(docx, DOCX)).blocks
        assert [block.text for block in blocks] == ["# A heading", "A paragraph."]
    else:
        with pytest.raises(Misconfigured) as caught:
            read(source(docx, DOCX))
        assert caught.value.fix == "pip install 'penstock[office]'"


def test_an_ordinary_archive_passes_the_check(docx: bytes) -> None:
    """A small file in good order is let through to its reader."""
    check_archive(docx)


def test_a_zip_bomb_that_declares_its_size_is_refused(make_zip: MakeZip) -> None:
    """50 MB of zeros in 50 kB never reach a parser."""
    with pytest.raises(Unreadable, match="grows larger than allowed"):
        check_archive(make_zip({"word/document.xml": b"\0" * 50_000_000}))


def test_a_zip_bomb_that_lies_about_its_size_is_refused(make_zip: MakeZip) -> None:
    """What an archive declares is not believed: unpacking stops at the limit."""
    raw = bytearray(make_zip({"word/document.xml": b"\0" * 50_000_000}))
    honest = struct.pack("<I", 50_000_000)
    assert raw.count(honest) == 2
    lying = bytes(raw).replace(honest, struct.pack("<I", 1_000))
    with pytest.raises(Unreadable, match=r"grows larger than allowed|damaged"):
        check_archive(lying)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_billion_laughs_are_refused_before_any_parser_sees_them(make_zip: MakeZip, encoding: str) -> None:
    """A document type inside a part is reason enough, in whatever encoding it hides."""
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    laughs = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "lol">{entities}]><x>&l9;</x>'
    with pytest.raises(Unreadable, match="document type"):
        check_archive(make_zip({"word/document.xml": b" " * 65_530 + laughs.encode(encoding)}))


def test_an_archive_of_too_many_parts_is_refused(make_zip: MakeZip) -> None:
    """Many empty parts cost nothing to store and much to open."""
    with pytest.raises(Unreadable, match="parts"):
        check_archive(make_zip({f"p{number}": b"" for number in range(10_001)}))


def test_what_is_no_archive_is_unreadable() -> None:
    """Bytes of any other kind are a reason, not a traceback."""
    with pytest.raises(Unreadable, match="not an Office file"):
        read(source(b"PK\x03\x04 and then nothing", DOCX))
