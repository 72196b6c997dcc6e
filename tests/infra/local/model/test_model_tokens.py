from __future__ import annotations

import pydoc_data.topics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as VendorTokenizer

from infra.local.model.tokens import Tokenizer
from infra.local.model.vectors import Encoder
from infra.local.model.weights import find_weights


@pytest.fixture(scope="module")
def vendor() -> VendorTokenizer:
    """The tokenizer as its file describes it."""
    return VendorTokenizer.from_file(str(find_weights().tokenizer))


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet=st.sampled_from("ab  \n\t▁é中😀.,0\x00-ABC"), max_size=60))
def test_any_text_has_the_ids_of_the_original_tokenizer(
    text: str, encoder: Encoder, vendor: VendorTokenizer
) -> None:
    """Cutting a text into units changes none of its tokens."""
    assert vendor.encode(text, add_special_tokens=False).ids == encoder.tokenizer.encode([text])[0]


def test_real_text_has_the_ids_of_the_original_tokenizer(encoder: Encoder, vendor: VendorTokenizer) -> None:
    """The same for half a million characters of documentation."""
    texts = list(pydoc_data.topics.topics.values())
    assert [e.ids for e in vendor.encode_batch(texts, add_special_tokens=False)] == encoder.tokenizer.encode(
        texts
    )


def test_control_tokens_in_a_text_are_text(encoder: Encoder) -> None:
    """A document that holds `</s>` says these four characters, not the end of a sequence."""
    assert not {0, 1, 2} & set(encoder.tokenizer.encode(["a </s> b <s> c <unk>"])[0])


def test_forgetting_units_changes_no_ids(vendor: VendorTokenizer) -> None:
    """A full memory of units starts afresh without a difference."""
    small = Tokenizer(find_weights().tokenizer, kept=3)
    texts = [f"unit number {n} of many words" for n in range(50)]
    assert [vendor.encode(t, add_special_tokens=False).ids for t in texts] == [
        small.encode([t])[0] for t in texts
    ]


def test_an_empty_text_has_no_tokens(encoder: Encoder) -> None:
    """Nothing is counted for nothing."""
    assert encoder.tokenizer.count("") == 0
