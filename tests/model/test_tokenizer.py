"""The tokenizer against the published pattern, and what it does with what it does not know."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from lipo_cli.chem.tokens import N_SPECIAL, split_tokens, unmatched
from lipo_cli.model.base import SHIPPED_ROOT
from lipo_cli.model.tokenizer import (
    SPECIAL,
    Encoded,
    MolformerTokenizer,
    build_tokenizer,
    encode,
    load_tokenizer,
)
from tests.fixtures.models import SMILES

# Copied from the published tokenizer, not from the package: the two must agree.
PUBLISHED = (
    r"(\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|\/|:|~|@|\?|>|\*|\$"
    r"|\%[0-9]{2}|[0-9])"
)
ALPHABET = "CcNnOoSsPpFIBbrl()[]=#-+\\/:.@%0123456789H*$~?>XyZ &é"
TEXTS = st.text(alphabet=ALPHABET, max_size=40)


@pytest.fixture(scope="module")
def tokenizer() -> MolformerTokenizer:
    return build_tokenizer(SMILES)


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_tokens_are_the_matches_of_the_published_pattern(
    tokenizer: MolformerTokenizer, text: str
) -> None:
    wanted = re.findall(PUBLISHED, text)
    assert split_tokens(text) == wanted
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
    assert [token for token, _ in split] == wanted


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_tokens_and_unmatched_characters_make_up_the_text(text: str) -> None:
    lost = unmatched(text)
    assert len("".join(split_tokens(text))) + len(lost) == len(text)
    assert sorted("".join(split_tokens(text)) + lost) == sorted(text)


@pytest.mark.parametrize(
    ("text", "tokens", "lost"),
    [
        ("CCl", ["C", "Cl"], ""),
        ("BrB", ["Br", "B"], ""),
        ("C[C@@H](N)O", ["C", "[C@@H]", "(", "N", ")", "O"], ""),
        ("C%12CC%12", ["C", "%12", "C", "C", "%12"], ""),
        ("C%1", ["C", "1"], "%"),
        ("CHO", ["C", "O"], "H"),
        ("[Na+].[Cl-]", ["[Na+]", ".", "[Cl-]"], ""),
        ("C X", ["C"], " X"),
        ("[CH3", ["C", "3"], "[H"),
        ("", [], ""),
    ],
)
def test_splits_known_by_hand(text: str, tokens: list[str], lost: str) -> None:
    assert split_tokens(text) == tokens
    assert sorted(unmatched(text)) == sorted(lost)


@settings(max_examples=100, deadline=None)
@given(text=TEXTS)
def test_ids_are_those_of_the_vocabulary_or_unknown(
    tokenizer: MolformerTokenizer, text: str
) -> None:
    vocabulary = tokenizer.get_vocab()
    wanted = [vocabulary.get(token, 4) for token in re.findall(PUBLISHED, text)]
    encoded = encode(tokenizer, [text], 10_000)
    (ids,) = encoded.ids
    assert ids == [0, *wanted, 1]
    assert encoded.n_truncated == 0
    dropped = len("".join(re.findall(PUBLISHED, text))) < len(text)
    assert encoded.n_unknown == (4 in wanted or dropped)
    assert len(ids) == len(split_tokens(text)) + N_SPECIAL


def test_special_tokens_stand_first(tokenizer: MolformerTokenizer) -> None:
    assert SPECIAL == ("<bos>", "<eos>", "<pad>", "<mask>", "<unk>")
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL)) == [0, 1, 2, 3, 4]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1)
    assert (tokenizer.pad_token_id, tokenizer.mask_token_id, tokenizer.unk_token_id) == (2, 3, 4)


def test_unknown_token_is_unk_and_nothing_else_moves(tokenizer: MolformerTokenizer) -> None:
    (known,) = encode(tokenizer, ["CCO"], 100).ids
    (with_unknown,) = encode(tokenizer, ["C[Xe]CO"], 100).ids
    assert with_unknown == [*known[:2], 4, *known[2:]]


def test_molecules_with_something_unknown_are_counted_once(tokenizer: MolformerTokenizer) -> None:
    assert encode(tokenizer, SMILES, 202).n_unknown == 0
    texts = ["C[Xe]C[Xe][Kr]", "CHO", "C C", "CX[Xe]", "CCO", ""]
    assert encode(tokenizer, texts, 100).n_unknown == 4


def test_unknown_token_beyond_the_cut_is_counted_too(tokenizer: MolformerTokenizer) -> None:
    encoded = encode(tokenizer, ["C" * 20 + "[Xe]"], 8)
    assert 4 not in encoded.ids[0]
    assert (encoded.n_truncated, encoded.n_unknown) == (1, 1)


def test_truncation_keeps_the_end_and_is_counted(tokenizer: MolformerTokenizer) -> None:
    texts = ["C" * 6, "C" * 7, "C" * 50, ""]
    encoded = encode(tokenizer, texts, 8)
    ids = encoded.ids
    assert encoded.n_truncated == 2  # six atoms with bos and eos just fit
    carbon = tokenizer.convert_tokens_to_ids("C")
    assert ids[0] == ids[1] == ids[2] == [0, *[carbon] * 6, 1]
    assert ids[3] == [0, 1]


def test_vocabulary_is_ordered_by_count_then_alphabet() -> None:
    tokenizer = build_tokenizer(["CCO", "CN", "NO", "[nH]"])
    # C three times, N and O twice, [nH] once
    assert tokenizer.convert_ids_to_tokens(range(5, 9)) == ["C", "N", "O", "[nH]"]


def test_equal_data_gives_equal_files_in_any_order(tmp_path: Path) -> None:
    texts = []
    for i, smiles in enumerate((SMILES, SMILES[::-1])):
        file = tmp_path / f"{i}.json"
        build_tokenizer(smiles).backend_tokenizer.save(str(file))
        texts.append(file.read_bytes())
    assert texts[0] == texts[1]


def test_rare_tokens_are_left_out() -> None:
    vocabulary = build_tokenizer(["CCO", "CN", "NO", "[nH]"], min_count=2).get_vocab()
    assert set(vocabulary) == {*SPECIAL, "C", "N", "O"}


def test_written_file_reads_back_alike(tmp_path: Path, tokenizer: MolformerTokenizer) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    assert encode(again, SMILES, 202) == encode(tokenizer, SMILES, 202)
    assert again.get_vocab() == tokenizer.get_vocab()


def test_auto_tokenizer_splits_by_the_pattern_too(
    tiny: Path, tmp_path: Path, tokenizer: MolformerTokenizer
) -> None:
    tokenizer.save_pretrained(tmp_path)
    for folder in (tmp_path, tiny):  # with tokenizer_config.json, and with config.json
        automatic = AutoTokenizer.from_pretrained(folder)
        assert type(automatic) is MolformerTokenizer
        assert automatic(list(SMILES)).input_ids == tokenizer(list(SMILES)).input_ids
        split = automatic.backend_tokenizer.pre_tokenizer.pre_tokenize_str("C[C@H](Br)%12")
        assert [token for token, _ in split] == ["C", "[C@H]", "(", "Br", ")", "%12"]


def test_nothing_to_encode_gives_nothing(tokenizer: MolformerTokenizer) -> None:
    assert encode(tokenizer, [], 10) == Encoded([], n_truncated=0, n_unknown=0)


def test_fixed_padding_and_truncation_of_a_file_are_switched_off(
    tmp_path: Path, tokenizer: MolformerTokenizer
) -> None:
    backend = build_tokenizer(SMILES).backend_tokenizer
    backend.enable_padding(length=128, pad_id=2, pad_token="<pad>")
    backend.enable_truncation(max_length=16)
    backend.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path)
    assert loaded.backend_tokenizer.padding is None
    assert loaded.backend_tokenizer.truncation is None
    assert encode(loaded, ["C", "C" * 60], 202) == encode(tokenizer, ["C", "C" * 60], 202)


def test_shipped_tokenizer_knows_every_token_of_drug_like_molecules() -> None:
    shipped = load_tokenizer(SHIPPED_ROOT / "small")
    encoded = encode(shipped, SMILES, 202)
    assert all(shipped.unk_token_id not in row for row in encoded.ids)
    assert encoded.n_unknown == 0
